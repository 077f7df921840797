"""The repository's files in the box: unpacked, changed, and what is changed."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

MOMENT = 1577836800  # every file is from 2020-01-01, so that listings don't depend on when they are made
SKIPPED = {"__pycache__", ".pytest_cache", ".mypy_cache"}
"""Folders that running Python leaves behind: no change of the repository."""
LARGEST, MOST = 16 << 20, 2000
"""Bytes and number of changed files that are kept from one command to the next."""

Changes = dict[str, Any]
"""Path → ``{"data": base64, "executable": bool}``, ``{"link": target}``, or None for what is gone."""


def unpack(root: Path) -> None:
    """The repository's files, if they came along."""
    archive = Path("base.tar")
    if archive.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "fully_trusted_filter"):
                tar.extractall(root, filter="fully_trusted")
            else:
                tar.extractall(root)
        archive.write_bytes(b"")  # the folder is not ours, so that it stays, empty


def put(root: Path, changes: Changes) -> None:
    """Carry out changes: first what is gone, then what is there."""
    for name, change in changes.items():
        path = root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif change is not None and path.is_dir():
            shutil.rmtree(path)
    for name, change in sorted(changes.items()):
        if change is None:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "link" in change:
            path.symlink_to(change["link"])
            continue
        path.write_bytes(base64.b64decode(change["data"]))
        path.chmod(0o755 if change["executable"] else 0o644)
        os.utime(path, (MOMENT, MOMENT))


def survey(root: Path) -> dict[str, tuple[int, ...]]:
    """Every file's path and what changes when it does."""
    found: dict[str, tuple[int, ...]] = {}
    for folder, names, files in os.walk(root):
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        names[:] = sorted(set(names) - SKIPPED - set(links))
        for name in [*files, *links]:
            path = Path(folder) / name
            told = path.lstat()
            relative = path.relative_to(root).as_posix()
            if _is_text(relative) and (stat.S_ISREG(told.st_mode) or stat.S_ISLNK(told.st_mode)):
                found[relative] = (told.st_mode, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)
    return found


def changed(root: Path, before: dict[str, tuple[int, ...]]) -> tuple[Changes, str]:
    """What is no more as ``before``, and why it can't be kept, if so."""
    after = survey(root)
    changes: Changes = {name: None for name in before if name not in after}
    size = 0
    for name, told in after.items():
        if before.get(name) == told:
            continue
        path = root / name
        if path.is_symlink():
            changes[name] = {"link": os.readlink(path)}  # noqa: PTH115 - as it is written
            continue
        size += told[1]
        if size > LARGEST or len(changes) > MOST:
            return {}, f"it left more than {LARGEST >> 20} MB or {MOST} files changed"
        data = base64.b64encode(path.read_bytes()).decode()
        changes[name] = {"data": data, "executable": bool(told[0] & 0o100)}
    return changes, ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
