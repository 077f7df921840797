"""The lock that the process which writes a run holds."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_NAME = ".lock"
WRITER_NAME = ".writer.tmp"
"""Says who holds the lock; a temporary, gone when the run has ended."""


def is_alive(run_dir: Path) -> bool:
    """Whether some process holds the run's lock right now."""
    try:
        with FileLock(run_dir / LOCK_NAME, timeout=0):
            return False
    except Timeout:
        return True


def note_writer(run_dir: Path) -> None:
    """Leave word of who writes a run; for the holder of its lock."""
    with suppress(OSError):
        (run_dir / WRITER_NAME).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")


def writer(run_dir: Path) -> str | None:
    """The process that writes a run, in words, where it has left word."""
    with suppress(OSError, UnicodeDecodeError):
        return (run_dir / WRITER_NAME).read_text(encoding="utf-8") or None
    return None
