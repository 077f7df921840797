"""Disks that are full, folders that can't be written: what the system says of them, in one line."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from r2v_core.errors import R2VError

RESERVE = ".reserve.tmp"
"""Space in a run's directory that is given back when its last manifest is written: a full disk has room for it."""
RESERVE_BYTES = 1 << 16

_FULL = "free some space"
_CLOSED = "give yourself access to it"
_WAY_OUT = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "free some of the quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}
_NEEDS_FILE = (errno.EACCES, errno.EPERM)
"""Said of much else too; of storage only where the error names a file."""
_TORCH = "inline_container.cc"
"""PyTorch's writer of archives, which says where it failed rather than why."""


class StorageError(R2VError):
    """The disk is full, or a folder can't be written. What was made until then is good."""


def storage_error(error: BaseException, run_dir: Path | None = None) -> StorageError | None:
    """The error as one that its reader can fix, if storage is at fault; else None.

    Args:
        run_dir: where the run writes, for errors that name no file.
    """
    for link in _causes(error):
        if (number := _number(link)) is None:
            continue
        if isinstance(error, StorageError):
            return error
        if isinstance(error, R2VError):  # it says already which file and what to do
            return StorageError(str(error))
        place = _place(link, run_dir)
        return StorageError(f"{place}: {os.strerror(number)}; {_WAY_OUT[number]} and give the same command again")
    return None


def reserve(run_dir: Path) -> None:
    """Set aside the space that a run's last manifest takes; it is a temporary, swept like all of them."""
    with suppress(OSError):
        (run_dir / RESERVE).write_bytes(os.urandom(RESERVE_BYTES))  # zeros take no space everywhere


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        known = error.errno in _WAY_OUT and (error.errno not in _NEEDS_FILE or error.filename is not None)
        return error.errno if known else None
    said = str(error)
    if (code := re.search(r"\(os error (\d+)\)", said)) and int(code[1]) in _WAY_OUT:
        return int(code[1])
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        if os.strerror(number) in said:
            return number
    return errno.ENOSPC if _TORCH in said and "unexpected pos" in said else None


def _place(error: BaseException, run_dir: Path | None) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    if quoted := re.search(r"""["']([^"']*/[^"']*)["']""", str(error)):
        return quoted[1]
    folders = [*([run_dir] if run_dir else []), Path(tempfile.gettempdir())]
    free = {folder: shutil.disk_usage(folder).free for folder in folders if folder.is_dir()}
    fullest = min(free, key=lambda folder: free[folder])
    return f"{fullest} ({free[fullest] / 1e6:.1f} MB free)"
