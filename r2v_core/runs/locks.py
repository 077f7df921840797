"""The lock that the process which writes a run holds."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

LOCK_NAME = ".lock"


def is_alive(run_dir: Path) -> bool:
    """Whether some process holds the run's lock right now."""
    try:
        with FileLock(run_dir / LOCK_NAME, timeout=0):
            return False
    except Timeout:
        return True
