"""One program in a box, from start to end: its files, its limits, and why it was stopped if it was."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import psutil

from r2v_core.errors import R2VError
from r2v_core.sandbox.isolation import Box, boxed, find_backend

POLL_S = 0.02
_COMPLAINTS = ("bwrap: ", "setpriv: ", "FATAL: ")
"""How what the makers of boxes say begins, where no box could be made."""
NOTHING = ["/bin/true"]
_PASSED = {"apptainer": ("HOME", "TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR")}
"""Variables besides ``PATH`` that the maker of a box sees; they don't get inside."""
Stopped = Literal["time", "memory", "processes", "output"]


@dataclass(frozen=True)
class Limits:
    """What a program may use. Crossing one ends everything it started."""

    wall_s: float = 10.0
    """Seconds from start to end."""
    cpu_s: int = 10
    """Processor seconds of one process."""
    memory_mb: int = 512
    """Memory of all its processes together, and address space of each four times that."""
    processes: int = 32
    """Processes and threads at a time."""
    disk_mb: int = 32
    """Size of ``/box``, of ``/tmp`` and of ``/dev/shm``, and of one file."""
    output_kb: int = 256
    """What is read of standard output and of standard error each."""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    exit_code: int
    """As :mod:`subprocess` gives it: negative for a signal."""
    stdout: str
    stderr: str
    wall_s: float
    stopped: Stopped | None = None
    """The limit for which everything was killed; None if the program ended by itself."""


@dataclass
class _Stream:
    """Reads one of the program's streams up to a limit."""

    source: IO[bytes]
    limit: int
    data: bytearray = field(default_factory=bytearray)
    full: bool = False

    def read(self) -> None:
        with suppress(ValueError, OSError):  # closed by us once the program has ended
            while chunk := self.source.read1(1 << 16):  # type: ignore[attr-defined]
                self.data += chunk[: self.limit - len(self.data)]
                if len(self.data) >= self.limit:
                    self.full = True
                    return

    def text(self) -> str:
        return self.data.decode(errors="replace")


def run(
    command: Sequence[str],
    *,
    files: Mapping[str, str | bytes] | None = None,
    stdin: str = "",
    limits: Limits | None = None,
    backend: str = "auto",
    readable: Sequence[Path] = (),
    hidden: Sequence[Path] = (),
    image: str = "",
    writable: bool = False,
) -> Ended:
    """Run ``command`` in a box that holds ``files`` (name → content) and wait for its end.

    Whatever the program does, this returns within ``limits.wall_s`` and a moment, and nothing of it is left running.

    Args:
        readable: further folders of this machine that it can read.
        hidden: folders below those of the system or of Python that are empty to it.
        image: the container image of backend ``apptainer``; ``$R2V_APPTAINER_IMAGE`` unless given.
        writable: whether that image's files can be changed inside, for this run.

    Raises:
        R2VError: if there is no sandbox here, or the box can't be made.
    """
    limits = limits or Limits()
    chosen = find_backend(backend, image)
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in (files or {}).items()}
    with ExitStack() as stack:
        descriptors, folder = {}, None
        if chosen == "bubblewrap":
            descriptors = {name: _in_memory(stack, content) for name, content in contents.items()}
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r2v-box-")))
            for name, content in contents.items():
                (folder / name).write_bytes(content)
        limited = _limited_by_shell(limits) if chosen == "apptainer" else _limited(limits)
        box = Box(limits.disk_mb, descriptors, folder, readable, hidden, image, writable)
        process = subprocess.Popen(
            boxed(chosen, box, [*limited, *command]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=list(descriptors.values()),
            cwd=folder or "/",
            env={"PATH": "/usr/bin:/bin"}
            | {name: os.environ[name] for name in ("PATH", *_PASSED.get(chosen, ())) if name in os.environ},
            start_new_session=True,
        )
        ended = _watch(process, stdin, limits)
    if ended.exit_code in (1, 255) and ended.stderr.startswith(_COMPLAINTS):
        if list(command) == NOTHING:
            raise R2VError(f"the sandbox '{chosen}' does not work here: {ended.stderr.splitlines()[0]}")
        # a program can print such a line, too: it is the box's if nothing else works in it, either
        run(NOTHING, limits=limits, backend=chosen, readable=readable, hidden=hidden, image=image, writable=writable)
    return ended


def _in_memory(stack: ExitStack, content: bytes) -> int:
    """A descriptor that reads ``content``."""
    descriptor = os.memfd_create("r2v-box")
    stack.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as handle:
        handle.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _limited(limits: Limits) -> list[str]:
    """Limits that the kernel keeps, per process; inside the box, where the count of processes starts at none."""
    return [
        "/usr/bin/prlimit",
        f"--as={4 * limits.memory_mb << 20}",
        f"--cpu={limits.cpu_s}",
        f"--fsize={limits.disk_mb << 20}",
        f"--nproc={limits.processes}",
        "--nofile=256",
        "--core=0",
        "--",
    ]


def _limited_by_shell(limits: Limits) -> list[str]:
    """The same where prlimit may be missing. Processes are not limited so: a user's are counted over the whole host."""
    rules = {"v": 4 * limits.memory_mb << 10, "t": limits.cpu_s, "f": limits.disk_mb << 11, "n": 256, "c": 0}
    told = "; ".join(f"ulimit -{flag} {value}" for flag, value in rules.items())
    return ["/bin/sh", "-c", f'{told}; exec "$@"', "sh"]


def _watch(process: subprocess.Popen[bytes], stdin: str, limits: Limits) -> Ended:
    """Feed, read and time a program; kill everything it started when it crosses a limit, and at its end."""
    assert process.stdin and process.stdout and process.stderr
    streams = [_Stream(source, limits.output_kb << 10) for source in (process.stdout, process.stderr)]
    threads = [threading.Thread(target=stream.read, daemon=True) for stream in streams]
    threads.append(threading.Thread(target=_feed, args=(process.stdin, stdin.encode()), daemon=True))
    began = time.monotonic()
    stopped: Stopped | None = None
    try:
        for thread in threads:
            thread.start()
        while process.poll() is None and stopped is None:
            if any(stream.full for stream in streams):
                stopped = "output"
            elif time.monotonic() - began > limits.wall_s:
                stopped = "time"
            else:
                stopped = _crossed(process.pid, limits)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
    finally:
        _kill(process)
    wall_s = time.monotonic() - began
    for thread in threads:
        thread.join(1.0)  # a process that left the box's reach would hold the pipe open
    for stream in streams:
        stopped = stopped or ("output" if stream.full else None)
        stream.source.close()
    return Ended(process.returncode, streams[0].text(), streams[1].text(), wall_s, stopped)


def _feed(target: IO[bytes], data: bytes) -> None:
    with suppress(OSError), target:
        target.write(data)


def _crossed(pid: int, limits: Limits) -> Stopped | None:
    """Which limit all processes of the box together have crossed."""
    memory, threads = 0, 0
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory += one.memory_info().rss
                threads += one.num_threads()
    if memory > limits.memory_mb << 20:
        return "memory"
    return "processes" if threads > limits.processes + 4 else None  # 4: what makes the box


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the box. Its first process is its namespace's init: when that dies, the kernel kills all others."""
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
