"""The first lines of manifests: enough to find a run among thousands without parsing each one whole.

A manifest begins with who and when (stage, partition, status, creation); config and counts come after. Only the heads
of files that are new or have changed since the last look of this process are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2v_core.errors import R2VError
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest

_HEAD_BYTES = 2048
_FIRST_OF_THE_REST = b'\n  "finished_at"'
_FIELDS = ("run_id", "stage", "partition", "seed", "status", "created_at")


@dataclass(frozen=True)
class ManifestHead:
    """What a search looks at; the manifest itself is read for what it finds."""

    directory: Path
    run_id: str
    stage: str
    partition: str
    seed: int
    status: str
    created_at: str


_known: dict[str, tuple[tuple[int, int], ManifestHead | None]] = {}
"""Manifest path → its size and time when it was read, and its head (None: not a readable manifest)."""


def scan_heads(folder: Path) -> Iterator[ManifestHead]:
    """The heads of all readable manifests of a folder of run directories, in no order."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = f"{folder}/{name}/{MANIFEST_NAME}"
        try:
            state = Path(path).stat()
        except OSError:
            continue
        mark = (state.st_mtime_ns, state.st_size)
        known = _known.get(path)
        if known is None or known[0] != mark:
            known = _known[path] = (mark, _read_head(Path(path)))
        if known[1] is not None:
            yield known[1]


def _read_head(path: Path) -> ManifestHead | None:
    try:
        with path.open("rb") as handle:
            values = _parse(handle.read(_HEAD_BYTES))
        if values is None:
            manifest = read_manifest(path.parent)
            values = {name: getattr(manifest, name) for name in _FIELDS}
        return ManifestHead(path.parent, **values)
    except (OSError, R2VError):
        return None  # `r2v registry doctor` reports broken manifests; a search looks for usable ones


def _parse(start: bytes) -> dict[str, Any] | None:
    """The fields of a head as the manifest's writer lays it out; None for another layout."""
    head, found, _ = start.partition(_FIRST_OF_THE_REST)
    try:
        values = json.loads(head.rstrip(b",") + b"}") if found else None
        return values and {name: values[name] for name in _FIELDS}
    except (ValueError, KeyError):
        return None
