"""Replies that were paid for once: one small file a request, shared by all runs and processes.

A file is written whole or not at all and under its final name only, so that any number of processes, on any number of
machines that share the folder, may use it at the same time. It holds the request and the reply, never a key.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from r2v_core.digest import digest_of
from r2v_core.teachers.chat import Reply


class ReplyCache:
    """Replies by request; a request is a JSON value that holds all that decides the reply."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, request: dict[str, Any]) -> Path:
        """Where the reply to a request is kept."""
        name = digest_of(request)
        return self.folder / name[:2] / f"{name}.json"

    def get(self, request: dict[str, Any]) -> Reply | None:
        """The reply to an equal request, if one was kept; a file that can't be read counts as none."""
        try:
            kept = json.loads(self.path(request).read_text(encoding="utf-8"))
            return Reply(**kept["reply"]) if kept["request"] == request else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, request: dict[str, Any], reply: Reply) -> None:
        """Keep a reply."""
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        temporary.write_text(
            json.dumps({"request": request, "reply": reply.as_json()}, ensure_ascii=False, indent=1), encoding="utf-8"
        )
        temporary.replace(path)
