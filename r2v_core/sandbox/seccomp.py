"""Which system calls a box may make: a filter that bubblewrap loads just before the program starts.

Refused is what programs, tests and interpreters have no use for and where the kernel's holes were: namespaces and
mounts, keys, tracing, bpf, io_uring, kernel modules and settings, sockets other than local and internet ones. Of the
calls that are newer than number 424, where all architectures count alike, only listed ones exist inside, so that what a
later kernel brings is not there either. A program of another architecture (32 bit, x32) finds no calls at all.

The filter is made here, byte by byte, so that nothing has to be installed for it.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable

from r2v_core.errors import R2VError

_NEWNS = 0x7E020000
"""CLONE_NEW… of all namespaces that clone can make: mount, cgroup, UTS, IPC, user, process, network."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Requests that push keys into a terminal."""
_SO_BUFFERS = (7, 8)
"""SO_SNDBUF, SO_RCVBUF."""
_FAMILIES = (1, 2, 10)
"""Address families of sockets: local, IPv4, IPv6."""
_PROTOCOLS = (0, 1, 6, 17)
"""Protocols of sockets: the family's own, that of local ones (also ICMP's number), TCP, UDP."""
_QUERY = 0xFFFFFFFF
"""personality: asks and changes nothing."""

# name: (x86_64, aarch64); None where an architecture has no such call
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # programs in the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_setup": (206, 0),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "lookup_dcookie": (212, 18),
    # the machine
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "sysfs": (139, None),
}
UNCOUNTED: dict[str, tuple[int, int]] = {
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
}
"""Memory that nobody sees who looks at processes and file systems: only where a cgroup limits it."""
CHECKED = {
    "clone": (56, 220),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "personality": (135, 92),
    "ioctl": (16, 29),
    "setsockopt": (54, 208),
}
NEW = {
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
    "close_range": 436,
    "openat2": 437,
    "faccessat2": 439,
    "epoll_pwait2": 441,
    "futex_waitv": 449,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "mseal": 462,
}
"""The calls from 424 on that exist inside. clone3 (435) does not: a filter can't read its flags, and C libraries then
use clone."""
_FIRST_NEW = 424
_X32 = 0x40000000
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine → (column of the tables above, the kernel's name of it)."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in the kernel's ``struct seccomp_data``; of an argument the lower half is read, as the kernel does."""


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _refuse(error: int) -> bytes:
    return _op(_RETURN, 0x00050000 | error)


def _when(number: int, then: bytes) -> bytes:
    """``then``, which returns, for one call."""
    return _op(_EQUAL, number, 0, len(then) // 8) + then


def _argument(index: int, values: Iterable[int], listed: bytes, others: bytes) -> bytes:
    """Decide by an argument; what is decided returns."""
    tests = b"".join(_op(_EQUAL, value, 0, len(listed) // 8) + listed for value in values)
    return _op(_LOAD, _ARGUMENTS + 8 * index) + tests + others


def program(counted: bool, machine: str | None = None) -> bytes:
    """The filter.

    Args:
        counted: whether a cgroup limits the box's memory; if not, what else would be invisible is refused, too.
        machine: an architecture; this machine's unless given.

    Raises:
        R2VError: for an architecture without a table.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise R2VError(
            f"the sandbox has no table of system calls for {machine}, only for {' and '.join(ARCHITECTURES)}; run "
            "code that a model wrote on such a machine"
        )
    column, arch = ARCHITECTURES[machine]
    allow, never, missing = _op(_RETURN, _ALLOW), _refuse(errno.EPERM), _refuse(errno.ENOSYS)
    known_protocol = _argument(2, _PROTOCOLS, allow, _refuse(errno.EPROTONOSUPPORT))
    other_family = _refuse(errno.EAFNOSUPPORT)
    clone, socket, pair_of, personality, ioctl, setsockopt = (pair[column] for pair in CHECKED.values())
    parts = [_op(_LOAD, _ARCH), _op(_EQUAL, arch, 1, 0), missing, _op(_LOAD, _NUMBER)]
    parts += [_op(_AT_LEAST, _X32, 0, 1), missing] if machine == "x86_64" else []
    known = b"".join(_when(number, allow) for number in NEW.values()) + missing
    parts += [_op(_AT_LEAST, _FIRST_NEW, 0, len(known) // 8), known]
    parts += [_when(number, never) for pair in REFUSED.values() if (number := pair[column]) is not None]
    if not counted:
        parts += [_when(pair[column], missing) for pair in UNCOUNTED.values()]
        parts += [_when(setsockopt, _argument(2, _SO_BUFFERS, never, allow))]
    parts += [
        _when(clone, _op(_LOAD, _ARGUMENTS) + _op(_ANY_BIT, _NEWNS, 0, 1) + never + allow),
        *(_when(number, _argument(0, _FAMILIES, known_protocol, other_family)) for number in (socket, pair_of)),
        _when(personality, _argument(0, (_QUERY,), allow, never)),
        _when(ioctl, _argument(1, (_TIOCSTI, _TIOCLINUX), never, allow)),
        allow,
    ]
    return b"".join(parts)
