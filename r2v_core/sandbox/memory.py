"""The real memory of a box where no control group counts it: seen from outside, through its processes.

Counted are pages of processes (a shared one once), anonymous shared mappings at their full size, files and inodes of
the box's file systems in memory, TCP's queues, and for every socket the buffer it may fill. The filter of system calls
refuses, where this module watches, what it could not see: memfd, System V's shared memory and messages, larger socket
buffers. What is left uncounted is small for one object (pipes, timers, locks).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_FOLDERS = ("box", "tmp", "dev/shm")
_INODE = 2048
"""Bytes that the kernel may hold for one file in memory, beside its pages."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ (\S+) (\d+) +/dev/zero \(deleted\)$", re.MULTILINE)
_PSS = re.compile(rb"^(Pss|Pss_Shmem): +(\d+) kB$", re.MULTILINE)


def memory_of(pids: Sequence[int], limit: int) -> int:
    """Bytes that these processes and their box hold; exact only where a first, cheap sum is above ``limit``."""
    shared, resident = _shared_mappings(pids), sum(map(_resident, pids))
    around = shared + _around(pids)
    if resident + around <= limit:
        return resident + around
    return sum(map(_own_pages, pids)) + around


def _read(path: str) -> bytes:
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""


def _resident(pid: int) -> int:
    found = _read(f"/proc/{pid}/statm").split()
    return int(found[1]) * _PAGE if found else 0


def _own_pages(pid: int) -> int:
    """A process' pages, shared ones in part, without those that are counted as files or mappings."""
    found = {name: int(kb) for name, kb in _PSS.findall(_read(f"/proc/{pid}/smaps_rollup"))}
    return (found[b"Pss"] - found.get(b"Pss_Shmem", 0)) << 10 if b"Pss" in found else _resident(pid)


def _shared_mappings(pids: Sequence[int]) -> int:
    """Sizes of anonymous shared mappings, each once: their pages stay when no process maps them any more."""
    sizes: dict[bytes, int] = {}
    for pid in pids:
        parts: dict[bytes, int] = {}
        for start, end, _, inode in _SHARED.findall(_read(f"/proc/{pid}/maps")):
            parts[inode] = parts.get(inode, 0) + int(end, 16) - int(start, 16)
        for inode, size in parts.items():
            sizes[inode] = max(sizes.get(inode, 0), size)
    return sum(sizes.values())


def _around(pids: Sequence[int]) -> int:
    """Files in memory, and sockets, of the box that the last of these processes is in."""
    for pid in reversed(pids):
        with suppress(OSError, IndexError, ValueError):
            folders = [(Path(f"/proc/{pid}/root", name), Path("/", name)) for name in _FOLDERS]
            if any(host.exists() and host.stat().st_dev == inside.stat().st_dev for inside, host in folders):
                continue  # still on its way into the box
            mounted = [os.statvfs(inside) for inside, _ in folders]
            files = sum((one.f_blocks - one.f_bfree) * one.f_frsize for one in mounted)
            inodes = sum(one.f_files - one.f_ffree for one in mounted)
            return files + inodes * _INODE + _sockets(pid)
    return 0


def _sockets(pid: int) -> int:
    """The most that local and datagram sockets can hold, and what TCP's queues do."""
    used = re.search(rb"sockets: used (\d+)", _read(f"/proc/{pid}/net/sockstat"))
    return (int(used[1]) * _buffer() if used else 0) + _queued(pid, ("tcp", "tcp6"))


def queues_of(pids: Sequence[int]) -> int:
    """Bytes in the queues of a box's internet sockets, which a control group need not count."""
    own = Path("/proc/self/ns/net").stat().st_ino
    for pid in reversed(pids):
        with suppress(OSError):
            if Path(f"/proc/{pid}/ns/net").stat().st_ino != own:
                return _queued(pid, ("tcp", "tcp6", "udp", "udp6"))
    return 0


def _queued(pid: int, protocols: Sequence[str]) -> int:
    held = 0
    for name in protocols:
        for line in _read(f"/proc/{pid}/net/{name}").splitlines()[1:]:
            sent, _, received = line.split()[4].partition(b":")
            held += int(sent, 16) + int(received, 16)
    return held


@lru_cache(maxsize=1)
def _buffer() -> int:
    return max(int(_read(f"/proc/sys/net/core/{way}mem_default") or 212_992) for way in "rw")
