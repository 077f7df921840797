"""``make ui``: Dagster's webserver, daemon and code server, and all that they start, as one thing that ends when told.

``dagster dev`` alone leaves its code servers, and with them the runs at work, behind for a while; and a terminal's
Ctrl-C reaches all of its processes at once, each of which then tells of it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from r2v_core.console import say
from r2v_core.errors import R2VError
from r2v_core.runs import stopping
from r2v_core.runs.manifest import read_manifest

PATIENCE_S = 90.0
"""A run gives its stage 30 s to save and close its files (``compute.grace_s``); some more for a slow machine."""
IDLE_S = 5.0
"""For servers, once no run is at work."""
_STAGE = re.compile(r"(\S+)/spec\.json$")


def main(arguments: Sequence[str]) -> int:
    """Run ``dagster dev`` with these arguments until it ends or is told to; returns the exit status."""
    with stopping.listening():
        process = subprocess.Popen(
            [sys.executable, "-m", "r2v_assets.compute.guard", str(os.getpid()), *_DEV, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone
        )
        assert process.stdout is not None
        silent = threading.Event()
        reader = threading.Thread(target=_copy, args=(process.stdout, silent), daemon=True)
        reader.start()
        try:
            return process.wait()
        except stopping.Stopped as stop:
            silent.set()
            with stopping.held():
                say(f"\n{stop}: {_end(process)}", error=True)
            return stop.status
        finally:
            _kill(_started_by(process))


_DEV = (sys.executable, "-m", "dagster", "dev")


def _end(process: subprocess.Popen[bytes]) -> str:
    """End everything, runs at work first with what they have saved; says what became of them."""
    before = _started_by(process)
    stages = [found for each in before if (found := _run_directory(each)) is not None]
    for each in before:
        if _run_directory(each) is None:  # a stage is ended by its run, which then knows why
            with suppress(psutil.Error):
                each.send_signal(signal.SIGINT)
    end, idle = time.monotonic() + PATIENCE_S, None
    while (left := _alive(before)) and time.monotonic() < end:
        busy = any(_works_on_a_run(each) for each in left)
        idle = None if busy else idle or time.monotonic()
        if idle is not None and time.monotonic() - idle > IDLE_S:
            break
        time.sleep(0.1)
    _kill(_started_by(process) + before)
    process.wait()
    told = [f"{folder.name}: {_became(folder)}" for folder in stages]
    return "; ".join(["no run was at work" if not told else "runs can be resumed by materialising again", *told])


def _started_by(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process and all that came of it: its descendants, and what is left of its session when parents have ended."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(each.pid) == process.pid:
                found += [each, *each.children(recursive=True)]
    return list(dict.fromkeys(found))


def _alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _run_directory(process: psutil.Process) -> Path | None:
    """Of a stage's process: the run it works on."""
    found = _STAGE.search(_command(process))
    return Path(found[1]) if found else None


def _works_on_a_run(process: psutil.Process) -> bool:
    return _run_directory(process) is not None or "multiprocessing.spawn" in _command(process)


def _became(run_dir: Path) -> str:
    try:
        manifest = read_manifest(run_dir)
    except R2VError:
        return "nothing had begun"
    return manifest.error or manifest.status


def _kill(processes: Sequence[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.Error):
            each.kill()


def _copy(source: IO[bytes], silent: threading.Event) -> None:
    """Pass on what the services print, until they are told to end."""
    with source:
        for line in source:
            if not silent.is_set():
                with suppress(OSError):
                    os.write(1, line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
