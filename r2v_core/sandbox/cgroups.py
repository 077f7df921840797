"""A control group around each box: the kernel's own limits on memory, processes and processors of all of it together.

Which kind there is here is tried out once a process, by making one (:func:`control`):

- ``cgroup v1``: as root, in the hierarchies of memory, pids and cpu, below this process' own groups;
- ``cgroup v2``: in the nearest group above this process that has the controllers and may be written: root's, or what is
  delegated to a user;
- ``systemd``: a transient scope of the user's (or root's) systemd, where that limits memory;
- ``watched``: none of them. Then :mod:`.memory` looks at the box every few hundredths of a second.

Groups are removed with their box. A helper that waits for the end of this process removes those that are left then,
also after ``kill -9``; what even that has left, the next process removes.
"""

from __future__ import annotations

import atexit
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from r2v_core.errors import R2VError
from r2v_core.sandbox.limits import Limits

Control = Literal["cgroup v1", "cgroup v2", "systemd", "watched"]
MAKERS = 4
"""Processes that make a box, beside the program's."""
_MOUNTS = Path("/proc/self/mounts")
_PREFIX = "r2v-box-"
_PERIOD_US = 100_000
_REMOVED_S = 2.0
"""How long a group whose processes were killed may take to be empty."""
_SETTLED_S = 60.0
"""Age from which a group without an owner is one that was left."""
_NUMBER = itertools.count()
_one_at_a_time = threading.Lock()
_ENTER = """
n=$1; shift
while [ "$n" -gt 0 ]; do
    f=$1/tasks # of v1: moving one thread, all that this shell has, saves milliseconds
    [ -e "$f" ] || f=$1/cgroup.procs
    echo 0 > "$f" || exit 125; shift; n=$((n-1))
done
exec "$@"
"""
_TIDY = """
read -r _; n=0
while [ "$n" -lt 100 ]; do
    left=
    for one in "$@"; do
        for d in "$one"-*; do
            [ -d "$d" ] || continue
            while read -r p; do kill -9 "$p"; done < "$d/cgroup.procs"; rmdir "$d" || left=1
        done
    done
    [ "$left" ] || exit 0; n=$((n+1)); sleep 0.05
done
"""


@dataclass(frozen=True)
class _Place:
    """Where groups can be made, and how a limit is written there."""

    control: Control
    folders: tuple[Path, ...] = ()
    """One a hierarchy: v1 has several, of which the first is memory's."""
    prefix: str = field(default_factory=lambda: f"{_PREFIX}{os.getpid()}.{secrets.token_hex(4)}")
    """How the names of this process' groups begin; processes of other containers may have the same number."""


@dataclass
class Group:
    """One box's group, or none where the box is watched instead."""

    control: Control
    folders: tuple[Path, ...] = ()
    scope: list[str] = field(default_factory=list)

    def entering(self, command: list[str]) -> list[str]:
        """The command line that runs ``command`` in the group."""
        if self.folders:
            return ["/bin/sh", "-c", _ENTER, "sh", str(len(self.folders)), *map(str, self.folders), *command]
        return [*self.scope, *command]

    def out_of_memory(self, pid: int) -> bool:
        """Whether the kernel has killed anything in it for its memory; ``pid`` is a process inside."""
        if self.control == "systemd" and not self.folders:
            self.folders = _v2_folder(pid, "r2v-box")
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, IndexError):
                told = (self.folders[0] / name).read_text()
                return any(line.split()[1] != "0" for line in told.splitlines() if line.startswith("oom_kill "))
        return False

    def pids(self) -> list[int]:
        """The processes in it."""
        found: set[int] = set()
        for folder in self.folders:
            with suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return sorted(found)

    def kill(self) -> None:
        """End everything in it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _written(control: Control, limits: Limits) -> list[dict[str, int | str]]:
    """The files that say the limits, for each hierarchy."""
    memory, processes = limits.memory_mb << 20, limits.processes + MAKERS
    quota = limits.cpus * _PERIOD_US
    if control == "cgroup v1":
        swap = {"memory.memsw.limit_in_bytes": memory, "memory.kmem.tcp.limit_in_bytes": memory}
        return [
            {"memory.limit_in_bytes": memory, **swap},
            {"pids.max": processes},
            {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": quota},
        ]
    v2: dict[str, int | str] = {
        "memory.max": memory,
        "memory.swap.max": 0,
        "pids.max": processes,
        "cpu.max": f"{quota} {_PERIOD_US}",
    }
    return [{**v2, "memory.oom.group": 1}]


_NEEDED = {"memory.limit_in_bytes", "memory.max", "pids.max"}
"""Files that must be there; the others are written where the kernel has them and allows it."""


@contextmanager
def group(limits: Limits) -> Iterator[Group]:
    """A group with these limits for one box, gone afterwards."""
    with _one_at_a_time:
        place = _place(os.getpid())
    try:
        made = _made(place, limits)
    except OSError as error:
        raise R2VError(f"can't make a control group that limits a sandbox: {error}") from None
    try:
        yield made
    finally:
        _removed(made)


def control() -> Control:
    """What limits the memory of boxes here."""
    with _one_at_a_time:
        return _place(os.getpid()).control


def _made(place: _Place, limits: Limits) -> Group:
    name = f"{place.prefix}-{next(_NUMBER)}"
    if not place.folders:
        return Group(place.control, scope=_scope(name, limits) if place.control == "systemd" else [])
    folders = tuple(folder / name for folder in place.folders)
    made = Group(place.control, folders)
    try:
        for folder, files in zip(folders, _written(place.control, limits), strict=True):
            folder.mkdir()
            for file, value in files.items():
                with nullcontext() if file in _NEEDED else suppress(OSError):
                    (folder / file).write_text(str(value))
    except OSError:
        _removed(made)
        raise
    return made


def _removed(made: Group) -> None:
    """Remove a group; one that does not get empty is left to the helper."""
    until = time.monotonic() + _REMOVED_S
    for folder in () if made.scope else made.folders:  # systemd removes its own
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > until:
                    return
                made.kill()
                time.sleep(0.002)


@lru_cache(maxsize=1)
def _place(pid: int) -> _Place:
    """Where this process (``pid``: a fork is another one) can make groups: the first kind that proves to work."""
    for place in _candidates():
        with suppress(OSError, subprocess.SubprocessError):
            if _works(place):
                if place.folders:
                    _tidy_up_after(place)
                return place
    return _Place("watched")


def _works(place: _Place) -> bool:
    """Whether a program that is started in a group is in it, under its limit."""
    made = _made(place, Limits(memory_mb=64))
    try:
        look = 'cat /proc/self/cgroup; cat /sys/fs/cgroup"$(sed -n s/^0:://p /proc/self/cgroup)"/memory.max'
        told = subprocess.run(
            made.entering(["/bin/sh", "-c", look]), capture_output=True, text=True, timeout=10, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/bin:/bin"},
        ).stdout  # fmt: skip
        if place.control == "systemd":
            return told.endswith(f"\n{64 << 20}\n")
        return all(told.count(f"{folder.name}\n") >= len(made.folders) for folder in made.folders)
    finally:
        _removed(made)


def _candidates() -> Iterator[_Place]:
    mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    own = {names: path for _, names, path in _own_groups(os.getpid())}
    v1 = []
    for controller in ("memory", "pids", "cpu"):
        names = next((n for n in own if controller in n.split(",")), None)
        at = next((Path(m[1]) for m in mounts if m[2] == "cgroup" and controller in m[3].split(",")), None)
        if names is not None and at is not None:
            inside = at / own[names].lstrip("/")
            v1.append(inside if inside.is_dir() else at)
    if len(set(v1)) == 3:  # none is missing, nor are two mounted together
        yield _Place("cgroup v1", tuple(v1))
    for folder in _v2_folder(os.getpid()):
        top = next(Path(m[1]) for m in mounts if m[2] == "cgroup2")
        for above in [folder, *folder.parents]:
            if not above.is_relative_to(top):
                break
            with suppress(OSError):
                has = (above / "cgroup.subtree_control").read_text().split()
                if {"memory", "pids"} <= set(has) and os.access(above / "cgroup.procs", os.W_OK):
                    yield _Place("cgroup v2", (above,))
    if shutil.which("systemd-run") and Path("/run/systemd/system").is_dir():
        yield _Place("systemd")


def _own_groups(pid: int) -> list[list[str]]:
    """(hierarchy, controllers, path) of a process' groups."""
    return [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]


def _v2_folder(pid: int, named: str = "") -> tuple[Path, ...]:
    """The folder of a process' group in the unified hierarchy, if there is one and its name begins so."""
    with suppress(OSError, StopIteration):
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
        top = next(Path(m[1]) for m in mounts if m[2] == "cgroup2")
        path = next(path for number, _, path in _own_groups(pid) if number == "0")
        folder = top / path.lstrip("/")
        return (folder,) if folder.name.startswith(named) else ()
    return ()


def _scope(name: str, limits: Limits) -> list[str]:
    """Systemd's command for a scope with these limits, which ends with the box."""
    properties = {
        "MemoryMax": limits.memory_mb << 20,
        "MemorySwapMax": 0,
        "TasksMax": limits.processes + MAKERS,
        "CPUQuota": f"{100 * limits.cpus}%",
    }
    words = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={name}.scope"]
    words += [] if os.geteuid() == 0 else ["--user"]
    return [*words, *(f"--property={key}={value}" for key, value in properties.items()), "--"]


def _tidy_up_after(place: _Place) -> None:
    """Remove groups whose owner is gone, and start the helper that removes this process' own when it is."""
    for folder in place.folders:
        for left in folder.glob(f"{_PREFIX}*"):
            owner = re.fullmatch(rf"{_PREFIX}(\d+)\.\w+-\d+", left.name)
            with suppress(OSError):
                if owner and not Path("/proc", owner[1]).exists() and time.time() - left.stat().st_mtime > _SETTLED_S:
                    left.rmdir()
    prefixes = [str(folder / place.prefix) for folder in place.folders]
    helper = subprocess.Popen(
        ["/bin/sh", "-c", _TIDY, "sh", *prefixes], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True, cwd="/", env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    atexit.register(_let_go, helper, os.getpid())


def _let_go(helper: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it
        helper.communicate(timeout=10)
