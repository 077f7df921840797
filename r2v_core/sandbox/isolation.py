"""What isolates: the command line that puts a program into a box, by backend.

Inside: the program's own empty folder ``/box`` (in memory, limited), a private ``/tmp``, the system's ``/usr`` and this
Python's standard library to read, a minimal ``/dev`` and ``/proc``. Own process, network, mount, host-name and IPC
namespaces, no capabilities, an environment of four variables, an unprivileged user also where the caller is root.
System calls are filtered (:mod:`.seccomp`), keys are its own (:mod:`.keyring`), memory and processes are limited for
all of it together (:mod:`.cgroups`, :mod:`.memory`).

``apptainer``, for clusters without bubblewrap: the same by Apptainer's options, with the system of a container image
(``$R2V_APPTAINER_IMAGE``, any with ``python3``) instead of this machine's. Its ``/box`` is a folder on disk, so that
only the size of single files is limited, and the user inside is the one outside. **It was never run**: Apptainer was
not at hand where this was written. Its command line and when it is chosen and refused are tested, nothing else.

**Not isolated**: the kernel is shared, so a hole in it is a hole here; the processor is shared, and so are memory
bandwidth and the clock. What the program can read of ``/usr`` and of the CPU and
kernel versions is not hidden. Backend ``none`` isolates nothing: it limits time, memory, processes and output only.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r2v_core.errors import R2VError, nearest

BOX = "/box"
IMAGE = "R2V_APPTAINER_IMAGE"
"""The environment variable that names the image of boxes that Apptainer makes."""
NOBODY = 65534
_FIRST_UID = 100_000
_BOXES = 64
"""Boxes that one process may have open side by side, each with a user id of its own."""
_BOX = itertools.count()
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": BOX, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Box:
    """What a box is made of."""

    disk_mb: int
    files: Mapping[str, int] = field(default_factory=dict)
    """Descriptors of the files of ``/box`` by name, for a backend that takes them so."""
    filter: int | None = None
    """A descriptor that reads the filter of system calls, for a backend that loads one."""
    folder: Path | None = None
    """The folder that is ``/box``, for a backend that takes one."""
    readable: Sequence[Path] = ()
    """Further folders of this machine that can be read inside, under the same path."""
    hidden: Sequence[Path] = ()
    """Folders and files that could be read inside and are empty there."""
    image: str = ""
    """The container image, for a backend that has one."""
    writable: bool = False
    """Whether the image's files can be changed inside; what is changed is gone afterwards."""


def interpreter(backend: str = "") -> str:
    """The Python inside the box: this one, without its virtual environment's packages; the image's if it has one."""
    return "python3" if backend == "apptainer" else os.path.realpath(sys.executable)


def _bubblewrap(box: Box) -> list[str]:
    size = ["--size", str(box.disk_mb << 20)]
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
        arguments += _bound(prefix)
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--ro-bind-try", "/dev/null", "/proc/keys"]
    for folder in ("/tmp", "/dev/shm", BOX):
        arguments += ["--perms", "1777", *size, "--tmpfs", folder]
    for path in sorted(box.readable):
        arguments += _bound(str(path))
    for path in sorted(box.hidden):
        if not any(path.is_relative_to(shown) for shown in ("/usr", *prefixes, *map(str, box.readable))):
            continue  # it is not there anyway
        if path.is_dir():
            arguments += [*size, "--tmpfs", str(path), "--remount-ro", str(path)]
        elif path.is_file():
            arguments += ["--ro-bind", "/dev/null", str(path)]
    for name, descriptor in box.files.items():
        arguments += ["--perms", "0666", "--file", str(descriptor), f"{BOX}/{name}"]
    arguments += [] if box.filter is None else ["--seccomp", str(box.filter)]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", BOX, "--", *_own_user()]


def _bound(folder: str) -> list[str]:
    """To read under the same path; what is below ``/usr`` is there already."""
    if f"{folder}/".startswith("/usr/"):
        return []
    made = [word for parent in list(Path(folder).parents)[-2::-1] for word in ("--perms", "0755", "--dir", str(parent))]
    return [*made, "--ro-bind", folder, folder]


def _apptainer(box: Box) -> list[str]:
    """No file system, environment, process, host name, IPC or network of the host; root directory read-only."""
    arguments = ["apptainer", "--silent", "exec", "--containall", "--cleanenv", "--no-home", "--no-privs", "--no-eval"]
    arguments += ["--net", "--network", "none", "--uts", "--hostname", "box"]
    for name, value in _VARIABLES.items():
        if name not in ("PATH", "HOME"):  # PATH is the image's own; HOME can't be set so
            arguments += ["--env", f"{name}={value}"]
    if box.folder:
        arguments += ["--bind", f"{box.folder}:{BOX}:rw", "--pwd", BOX]
    for folder in box.readable:
        arguments += ["--bind", f"{folder}:{folder}:ro"]
    arguments += ["--writable-tmpfs"] if box.writable else []
    return [*arguments, box.image or os.environ.get(IMAGE, "")]


def _nothing(box: Box) -> list[str]:
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


BACKENDS: dict[str, tuple[str, Callable[[Box], list[str]]]] = {
    "bubblewrap": ("bwrap", _bubblewrap),
    "apptainer": ("apptainer", _apptainer),
    "none": ("", _nothing),
}
"""Name → (the program it needs, what makes its command line), in the order in which they are preferred."""


def find_backend(name: str = "auto", image: str = "") -> str:
    """The backend to use: the named one, or the first that is installed. ``none`` is never chosen by itself.

    Args:
        image: the container image, for the backend that needs one; ``$R2V_APPTAINER_IMAGE`` unless given.

    Raises:
        R2VError: if it is unknown, not installed or without an image, with what to do.
    """
    if name != "auto" and name not in BACKENDS:
        raise R2VError(f"Unknown sandbox '{name}'.{nearest(name, [*BACKENDS, 'auto'])}")
    wanted = [name] if name != "auto" else [backend for backend, (program, _) in BACKENDS.items() if program]
    for backend in wanted:
        program = BACKENDS[backend][0]
        if not program or shutil.which(program):
            _require_image(backend, image)
            return backend
    raise R2VError(
        f"no sandbox for code that a model wrote: {' or '.join(BACKENDS[b][0] for b in wanted)} is not installed. "
        "Install bubblewrap (apt install bubblewrap), or load Apptainer on a cluster (often: module load apptainer); "
        "sandbox 'none' runs such code with your own rights and has to be asked for by name"
    )


def _require_image(backend: str, image: str) -> None:
    if backend == "apptainer" and not image and not os.environ.get(IMAGE):
        raise R2VError(
            f"the sandbox 'apptainer' needs an image with Python: set {IMAGE}, after "
            "'apptainer pull python.sif docker://python:3.11-slim' to the path of python.sif; or apt install bubblewrap"
        )


def boxed(backend: str, box: Box, command: Sequence[str]) -> list[str]:
    """The whole command line."""
    return [*BACKENDS[backend][1](box), *command]
