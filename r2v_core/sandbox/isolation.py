"""What isolates: the command line that puts a program into a box, by backend.

Inside: the program's own empty folder ``/box`` (in memory, limited), a private ``/tmp``, the system's ``/usr`` and this
Python's standard library to read, a minimal ``/dev`` and ``/proc``. Own process, network, mount, host-name and IPC
namespaces, no capabilities, an environment of four variables, an unprivileged user also where the caller is root.

**Not isolated**: the kernel is shared, so a hole in it is a hole here; the processor is shared (limits are per process
and wall time), and so are memory bandwidth and the clock. What the program can read of ``/usr`` and of the CPU and
kernel versions is not hidden. Backend ``none`` isolates nothing: it limits time, memory, processes and output only.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from r2v_core.errors import R2VError, nearest

BOX = "/box"
NOBODY = 65534
_FIRST_UID = 100_000
_BOXES = 64
"""Boxes that one process may have open side by side, each with a user id of its own."""
_BOX = itertools.count()
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": BOX, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def interpreter() -> str:
    """The Python inside the box: this one, without its virtual environment's packages."""
    return os.path.realpath(sys.executable)


def _bubblewrap(files: Mapping[str, int], disk_mb: int) -> list[str]:
    size = ["--size", str(disk_mb << 20)]
    prefixes = {sys.base_prefix, sysconfig.get_paths()["stdlib"], str(Path(interpreter()).parent)}
    arguments = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--hostname", "box", "--cap-drop", "ALL", "--clearenv"]
    if os.geteuid() == 0:  # without a user namespace, so that the box's own user below is a real one
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    for name, value in _VARIABLES.items():
        arguments += ["--setenv", name, value]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in _LINKS:
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for name in ("/etc/ld.so.cache", "/etc/alternatives"):
        arguments += ["--ro-bind-try", name, name]
    for prefix in sorted(prefixes):
        if not prefix.startswith("/usr"):
            for parent in list(Path(prefix).parents)[-2::-1]:
                arguments += ["--perms", "0755", "--dir", str(parent)]
            arguments += ["--ro-bind", prefix, prefix]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm", BOX):
        arguments += ["--perms", "1777", *size, "--tmpfs", folder]
    for name, descriptor in files.items():
        arguments += ["--perms", "0666", "--file", str(descriptor), f"{BOX}/{name}"]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", BOX, "--", *_own_user()]


def _nothing(files: Mapping[str, int], disk_mb: int) -> list[str]:
    return []


def _own_user() -> list[str]:
    """Inside root's box: become a user of this box alone, who owns nothing and whose processes are counted apart."""
    if os.geteuid() != 0:
        return []
    uid = _FIRST_UID + os.getpid() * _BOXES + next(_BOX) % _BOXES
    return [
        "/usr/bin/setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--inh-caps=-all",
        "--no-new-privs",
    ]


BACKENDS: dict[str, tuple[str, Callable[[Mapping[str, int], int], list[str]]]] = {
    "bubblewrap": ("bwrap", _bubblewrap),
    "none": ("", _nothing),
}
"""Name → (the program it needs, what makes its command line from files by descriptor and the box's size in MB)."""


def find_backend(name: str = "auto") -> str:
    """The backend to use: the named one, or the first that is installed. ``none`` is never chosen by itself.

    Raises:
        R2VError: if it is unknown or not installed, with what to install.
    """
    if name != "auto" and name not in BACKENDS:
        raise R2VError(f"Unknown sandbox '{name}'.{nearest(name, [*BACKENDS, 'auto'])}")
    wanted = [name] if name != "auto" else [backend for backend, (program, _) in BACKENDS.items() if program]
    for backend in wanted:
        program = BACKENDS[backend][0]
        if not program or shutil.which(program):
            return backend
    raise R2VError(
        f"no sandbox for code that a model wrote: {' or '.join(BACKENDS[b][0] for b in wanted)} is not installed. "
        "Install bubblewrap (apt install bubblewrap); sandbox 'none' runs such code with your own rights and has to be "
        "asked for by name"
    )


def boxed(backend: str, files: Mapping[str, int], disk_mb: int, command: Sequence[str]) -> list[str]:
    """The whole command line."""
    return [*BACKENDS[backend][1](files, disk_mb), *command]
