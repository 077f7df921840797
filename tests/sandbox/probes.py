"""System calls that a box refuses, each made where it would work: run inside a namespace with all capabilities.

``python probes.py`` prints one JSON object: name → 0 where the call worked, else its error's name. Standard library
only; the numbers are those of x86_64.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
BUFFER = ctypes.create_string_buffer(4096)
NEWUSER, NEWNS, NEWNET = 0x10000000, 0x20000, 0x40000000


def call(number: int, *arguments: object) -> int:
    """A raw call's result; raises OSError."""
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]  # else half of each is chance
    result = int(libc.syscall(number, *wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def cloned(number: int, *arguments: object) -> None:
    """A call that makes a process, which ends at once."""
    if call(number, *arguments) == 0:
        os._exit(0)


def traced() -> None:
    """Attach to a child."""
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        call(101, 16, child, 0, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def a_socket(family: int, kind: int) -> Callable[[], None]:
    """Open and close a socket."""
    return lambda: socket.socket(family, kind).close()


def terminal_keys() -> None:
    """Push a key into a terminal of our own, which is the controlling one."""
    import fcntl
    import pty
    import termios

    os.setsid()
    _, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSCTTY, 0)
    fcntl.ioctl(end, termios.TIOCSTI, b"x")


IOVEC = struct.pack("QQ", ctypes.addressof(BUFFER), 8)
CLONE_ARGS = struct.pack("8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
ATTR = struct.pack("IIQQQQ", 1, 112, 0, 0, 0, 0) + b"\0" * 80  # a software event: the processor's clock
PROBES: dict[str, Callable[[], object]] = {
    "mount": lambda: call(165, b"t", b"/tmp", b"tmpfs", 0, None),
    "umount2": lambda: call(166, b"/tmp", 2),
    "chroot": lambda: call(161, b"/tmp"),
    "open_tree": lambda: call(428, -100, b"/tmp", 1),
    "fsopen": lambda: call(430, b"tmpfs", 0),
    "unshare a user namespace": lambda: call(272, NEWUSER),
    "unshare mounts": lambda: call(272, NEWNS),
    "clone a user namespace": lambda: cloned(56, NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    "clone a network namespace": lambda: cloned(56, NEWNET | signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": lambda: cloned(435, CLONE_ARGS, 64),
    "setns": lambda: call(308, os.open("/proc/self/ns/uts", os.O_RDONLY), 0),
    "add_key": lambda: call(248, b"user", b"probe", b"x", 1, -2),
    "keyctl": lambda: call(250, 1, None),
    "request_key": lambda: (call(248, b"user", b"asked", b"x", 1, -3), call(249, b"user", b"asked", None, 0)),
    "ptrace": traced,
    "process_vm_readv": lambda: call(310, os.getpid(), IOVEC, 1, IOVEC, 1, 0),
    "kcmp": lambda: call(312, os.getpid(), os.getpid(), 0, 0, 0),
    "pidfd_getfd": lambda: call(438, os.pidfd_open(os.getpid()), 0, 0),
    "io_uring_setup": lambda: call(425, 4, ctypes.create_string_buffer(120)),
    "io_setup": lambda: call(206, 1, ctypes.create_string_buffer(8)),
    "userfaultfd": lambda: call(323, 1),
    "personality": lambda: call(135, 0x0040000),
    "sethostname": lambda: call(170, b"x", 1),
    "setdomainname": lambda: call(171, b"x", 1),
    "name_to_handle_at": lambda: call(303, -100, b"/tmp", struct.pack("Ii", 128, 0) + b"\0" * 128, BUFFER, 0),
    "fanotify_init": lambda: call(300, 0x200, 0),
    "adjtimex": lambda: call(159, ctypes.create_string_buffer(208)),
    "sysfs": lambda: call(139, 3),
    "modify_ldt": lambda: call(154, 0, BUFFER, 16),
    "memfd_secret": lambda: call(447, 0),
    "netlink socket": a_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet socket": a_socket(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock socket": a_socket(40, socket.SOCK_STREAM),
    "keys into a terminal": terminal_keys,
}
PRIVILEGED: dict[str, Callable[[], object]] = {
    "perf_event_open": lambda: call(298, ATTR, 0, -1, -1, 0),
    "bpf": lambda: call(321, 0, struct.pack("IIII", 1, 4, 4, 1) + b"\0" * 112, 128),
    "syslog": lambda: call(103, 10, None, 0),
}
"""The same that only the machine's root can do."""
USED: dict[str, Callable[[], object]] = {
    "fork": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "thread": lambda: __import__("threading").Thread(target=int).start(),
    "local socket": lambda: socket.socketpair(),
    "internet socket": lambda: socket.create_server(("127.0.0.1", 0)),
    "process descriptor": lambda: os.pidfd_open(os.getpid()),
    "query of personality": lambda: call(135, 0xFFFFFFFF),
}
"""What programs need, which must work with the filter, too."""
UNCOUNTED: dict[str, Callable[[], object]] = {
    "memfd_create": lambda: os.memfd_create("x"),
    "shmget": lambda: call(29, 0, 4096, 0o1600),
    "msgget": lambda: call(68, 0, 0o1600),
    "semget": lambda: call(64, 0, 1, 0o1600),
    "a larger buffer": lambda: socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20),
}
"""What is refused only where no control group counts it."""


def outcome(probe: Callable[[], object]) -> str | int:
    """What a probe comes to, in a process of its own."""
    read, write = os.pipe()
    if os.fork() == 0:
        signal.alarm(5)
        try:
            probe()
            told = "0"
        except OSError as error:
            told = str(error.errno)
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    told = os.read(read, 16).decode()
    os.close(read)
    os.wait()
    return 0 if told == "0" else errno.errorcode.get(int(told or -1), "killed")


if __name__ == "__main__":
    json.dump({name: outcome(probe) for name, probe in (PROBES | PRIVILEGED | USED | UNCOUNTED).items()}, sys.stdout)
