"""One program in a box, from start to end: its files, its limits, and why it was stopped if it was."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import psutil

from r2v_core.errors import R2VError
from r2v_core.sandbox import seccomp
from r2v_core.sandbox.cgroups import MAKERS, Group, control, group
from r2v_core.sandbox.isolation import Box, boxed, find_backend
from r2v_core.sandbox.keyring import leave_session_keyring
from r2v_core.sandbox.limits import Limits, Stopped
from r2v_core.sandbox.memory import memory_of, queues_of

POLL_S = 0.02
_COMPLAINTS = ("bwrap: ", "setpriv: ", "FATAL: ", "sh: ", "Failed to ")
"""How what the makers of boxes say begins, where no box could be made, ..."""
_FAILED = (1, 125, 255)
"""... and their exit codes."""
NOTHING = ["/bin/true"]
_PASSED = {"apptainer": ("HOME", "TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR")}
"""Variables besides ``PATH`` that the maker of a box sees; they don't get inside."""
_FOR_SYSTEMD = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


@dataclass(frozen=True)
class SandboxResult:
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


_HOLDS = {
    "bubblewrap": "bubblewrap, system calls filtered",
    "apptainer": "Apptainer",
    "none": "no isolation",
}


def in_force(backend: str = "auto") -> str:
    """What isolates and limits a box here, in a few words; empty where there is no sandbox."""
    try:
        chosen = find_backend(backend)
    except R2VError:
        return ""
    kept = control()
    return f"{_HOLDS[chosen]}; memory {'watched' if kept == 'watched' else f'limited by {kept}'}"


class BoxesEnded(BaseException):
    """The work that a box was made for is not wanted any more; nothing is known of its program."""


_of_thread = threading.local()


def boxes_end_with(event: threading.Event) -> None:
    """End the boxes of the calling thread, present and future, once ``event`` is set: :func:`run` raises then."""
    _of_thread.ending = event


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
) -> SandboxResult:
    """Run ``command`` in a box that holds ``files`` (name → content) and wait for its end.

    Whatever the program does, this returns within ``limits.wall_s`` and a moment, and nothing of it is left running.

    Args:
        readable: further folders of this machine that it can read.
        hidden: folders and files below those of the system or of Python that are empty to it.
        image: the container image of backend ``apptainer``; ``$R2V_APPTAINER_IMAGE`` unless given.
        writable: whether that image's files can be changed inside, for this run.

    Raises:
        R2VError: if there is no sandbox here, or the box can't be made.
        BoxesEnded: if this thread's boxes were ended meanwhile (:func:`boxes_end_with`).
    """
    limits = limits or Limits()
    ending: threading.Event | None = getattr(_of_thread, "ending", None)
    chosen = find_backend(backend, image)
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in (files or {}).items()}
    box = Box(limits.disk_mb, readable=readable, hidden=hidden, image=image, writable=writable)
    ended = _in_own_thread(
        lambda given_up: _boxed(
            command, contents, stdin, limits, chosen, box, [given_up, *([ending] if ending else [])]
        )
    )
    if ending and ending.is_set():
        raise BoxesEnded
    if ended.exit_code in _FAILED and ended.stderr.startswith(_COMPLAINTS):
        if list(command) == NOTHING:
            raise R2VError(f"the sandbox '{chosen}' does not work here: {ended.stderr.splitlines()[0]}")
        # a program can print such a line, too: it is the box's if nothing else works in it, either
        run(NOTHING, limits=limits, backend=chosen, readable=readable, hidden=hidden, image=image, writable=writable)
    return ended


def _in_own_thread(work: Callable[[threading.Event], SandboxResult]) -> SandboxResult:
    """Do it in a thread with a session keyring of its own, which ends with it. The event says that we give up."""
    given_up = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="box", initializer=leave_session_keyring) as pool:
        try:
            return pool.submit(work, given_up).result()
        finally:
            given_up.set()


def _boxed(
    command: Sequence[str],
    contents: Mapping[str, bytes],
    stdin: str,
    limits: Limits,
    chosen: str,
    box: Box,
    given_up: Sequence[threading.Event],
) -> SandboxResult:
    """A whole box, by the thread that its keeper dies with."""
    with ExitStack() as stack:
        limiting = stack.enter_context(group(limits))
        descriptors: list[int] = []
        if chosen == "bubblewrap":
            files = {name: _in_memory(stack, content) for name, content in contents.items()}
            calls = _in_memory(stack, seccomp.program(counted=limiting.control != "watched"))
            box = replace(box, files=files, filter=calls)
            descriptors = [*files.values(), calls]
        else:
            box = replace(box, folder=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r2v-box-"))))
            for name, content in contents.items():
                (Path(str(box.folder)) / name).write_bytes(content)
        limited = _limited_by_shell(limits) if chosen == "apptainer" else _limited(limits)
        passed = ("PATH", *_PASSED.get(chosen, ()), *(_FOR_SYSTEMD if limiting.scope else ()))
        process = subprocess.Popen(
            limiting.entering(boxed(chosen, box, [*limited, *command])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            cwd=box.folder or "/",
            env={"PATH": "/usr/bin:/bin"} | {name: os.environ[name] for name in passed if name in os.environ},
            start_new_session=True,
        )
        return _watch(process, stdin, limits, limiting, given_up)


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


def _watch(
    process: subprocess.Popen[bytes],
    stdin: str,
    limits: Limits,
    limiting: Group,
    given_up: Sequence[threading.Event],
) -> SandboxResult:
    """Feed, read and time a program; kill everything it started when it crosses a limit, and at its end."""
    assert process.stdin and process.stdout and process.stderr
    streams = [_Stream(source, limits.output_kb << 10) for source in (process.stdout, process.stderr)]
    threads = [threading.Thread(target=stream.read, daemon=True) for stream in streams]
    threads.append(threading.Thread(target=_feed, args=(process.stdin, stdin.encode()), daemon=True))
    began = time.monotonic()
    stopped: Stopped | None = None
    ending = _ending(process)
    try:
        for thread in threads:
            thread.start()
        while process.poll() is None and stopped is None and not any(event.is_set() for event in given_up):
            _wait(process, ending)
            if any(stream.full for stream in streams):
                stopped = "output"
            elif time.monotonic() - began > limits.wall_s:
                stopped = "time"
            elif process.poll() is None:
                stopped = _crossed(process.pid, limits, limiting)
        if stopped is None and limiting.out_of_memory(process.pid):
            stopped = "memory"
    finally:
        _kill(process)
        limiting.kill()
        if ending is not None:
            os.close(ending)
    wall_s = time.monotonic() - began
    for thread in threads:
        thread.join(1.0)  # a process that left the box's reach would hold the pipe open
    for stream in streams:
        stopped = stopped or ("output" if stream.full else None)
        stream.source.close()
    return SandboxResult(process.returncode, streams[0].text(), streams[1].text(), wall_s, stopped)


def _ending(process: subprocess.Popen[bytes]) -> int | None:
    """A descriptor that can be read once the process has ended; None where the kernel has none."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        return None


def _wait(process: subprocess.Popen[bytes], ending: int | None) -> None:
    """Until the process ends, or for a moment."""
    if ending is not None:
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        poll.poll(POLL_S * 1000)
        return
    with suppress(subprocess.TimeoutExpired):
        process.wait(POLL_S)


def _feed(target: IO[bytes], data: bytes) -> None:
    with suppress(OSError), target:
        target.write(data)


def _crossed(pid: int, limits: Limits, limiting: Group) -> Stopped | None:
    """Which limit all processes of the box together have crossed."""
    if limiting.control != "watched":
        full = limiting.out_of_memory(pid) or queues_of(limiting.pids()) > limits.memory_mb << 20
        return "memory" if full else None
    processes: list[psutil.Process] = []
    threads = 0
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                threads += one.num_threads()
                processes.append(one)
    if memory_of([one.pid for one in processes], limits.memory_mb << 20) > limits.memory_mb << 20:
        return "memory"
    return "processes" if threads > limits.processes + MAKERS else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the box. Its first process is its namespace's init: when that dies, the kernel kills all others."""
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
