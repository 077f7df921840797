"""The log of a server's decisions: one JSON line each."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from r2v_core.errors import R2VError
from r2v_core.runs.manifest import utc_now


class DecisionLog:
    """Appends lines to a file, whole ones, whoever asks at once.

    Attributes:
        path: the file.
        messages: whether lines hold what was said: the request's messages, the candidates, the action.
    """

    def __init__(self, path: Path, messages: bool = False) -> None:
        """Open the file for appending.

        Raises:
            R2VError: if it can't be written.
        """
        self.path, self.messages = path, messages
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise R2VError(f"--log {path}: can't be written ({error.strerror}); name another file") from None

    def write(self, facts: dict[str, Any], said: dict[str, Any]) -> None:
        """One line: the time, the facts, and where messages are logged what was said."""
        line = {"time": utc_now(), **facts, **(said if self.messages else {})}
        text = json.dumps(line)
        with self._lock:
            self._file.write(text + "\n")
            self._file.flush()
