"""The locks that the processes which write a run hold: one for its main process, one for each shard."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from r2v_core.errors import R2VError
from r2v_core.runs.memory import FOLDER

LOCK_NAME = ".lock"
WRITER_NAME = ".writer.tmp"
"""Says who holds the lock; a temporary, gone when the run has ended."""


LOCK_S = 1.0
"""Who looks whether a run is alive holds its locks for a moment."""
OPENING_S = 60.0
"""Shards that begin together open their run one after the other."""


def is_alive(run_dir: Path) -> bool:
    """Whether some process holds the run's lock, or one of its shards', right now."""
    return _is_held(run_dir / LOCK_NAME) or shards_alive(run_dir)


def shards_alive(run_dir: Path) -> bool:
    """Whether a process plays a part of the run right now."""
    return any(_is_held(path) for path in (run_dir / FOLDER).glob("shard*.lock"))


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def held_by(path: Path, what: str, timeout: float = LOCK_S) -> Iterator[None]:
    """Hold a lock.

    Raises:
        R2VError: if another process holds it all the time.
    """
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise R2VError(f"{what} is being written by another process right now") from None
    try:
        yield
    finally:
        lock.release()


def note_writer(run_dir: Path) -> None:
    """Leave word of who writes a run; for the holder of its lock."""
    with suppress(OSError):
        (run_dir / WRITER_NAME).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")


def writer(run_dir: Path) -> str | None:
    """The process that writes a run, in words, where it has left word."""
    with suppress(OSError, UnicodeDecodeError):
        return (run_dir / WRITER_NAME).read_text(encoding="utf-8") or None
    return None
