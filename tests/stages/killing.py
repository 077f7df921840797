"""A stage that is killed at a chosen record or change of a file, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r2v_core.runs.jsonl import JsonlStore, to_json
from r2v_core.stages.cli import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "r2v_core.stages.rollouts",
        "r2v_core.stages.train_router",
        "r2v_core.stages.collect",
        "r2v_core.stages.train_dpo",
        "r2v_core.stages.train_verifier",
        "r2v_core.stages.report",
    ]
)
Kill = Callable[[Path, int, str], None]

RECORD_MOMENTS = ("before", "half written", "written")
KILLS = int(os.environ.get("R2V_KILLS", "2"))
"""Kills of each stage that is killed anywhere; docs/how-to/data.md reports what more of them found."""


def at_record(root: Path, n: int, moment: str) -> None:
    """Die when the n-th record is appended: to a result file or to what a model said."""
    append, left = JsonlStore.append, n

    def counted(self: JsonlStore[Any], record: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and moment == "half written":
            line = to_json(record.model_dump(mode="json"), "").encode()
            self._open()
            assert self._fd is not None
            os.write(self._fd, line[: len(line) // 2])
        if left > 0 or moment == "written":
            append(self, record)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    JsonlStore.append = counted  # type: ignore[method-assign]


def at_change(root: Path, n: int, moment: str) -> None:
    """Die before the n-th change of a file below ``root`` (opened for writing, renamed, removed), or seconds after it.

    ``moment`` is a number of seconds. The alarm ends the process as SIGKILL does, wherever it is: nothing handles it.
    """
    left = n

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not writes or not isinstance(arguments[0], (str, Path)) or not str(arguments[0]).startswith(str(root)):
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        left -= 1
        if left == 0 and float(moment):
            signal.setitimer(signal.ITIMER_REAL, float(moment))
        elif left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _attempt(root: Path, arguments: list[str], kill: Kill, n: int, moment: str) -> None:
    """Run a stage to its end, or until it is killed."""
    os.environ |= {"R2V_PROJECT": str(root), "OMP_NUM_THREADS": "1"}
    os.chdir(root)
    kill(root, n, moment)
    raise SystemExit(main(arguments[0], arguments[1:]))


def killed(root: Path, arguments: list[str], kill: Kill, n: int, moment: str) -> bool:
    """Run a stage once; whether it was killed before it had finished."""
    process = _SERVER.Process(target=_attempt, args=(root, arguments, kill, n, moment))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGALRM), process.exitcode
    return process.exitcode != 0


def run_with_kills(root: Path, arguments: list[str], draw: random.Random, at_most: int) -> int:
    """Run a stage again and again, killed at random records, until it has finished; the number of kills."""
    kills = 0
    # the first record is always written, so every attempt gets on
    while killed(root, arguments, at_record, draw.randint(2, at_most), draw.choice(RECORD_MOMENTS)):
        kills += 1
    return kills


def run_with_kills_anywhere(
    root: Path, arguments: list[str], draw: random.Random, changes: int, later_s: float, attempts: int = KILLS
) -> int:
    """Run a stage with so many chances to be killed, then to its end; the number of kills.

    Args:
        changes: a kill comes at a random one of the first so many changes of files: half of them right before it,
            half of them up to ``later_s`` seconds after it, in the middle of a write or of a computation.
        attempts: one that finishes before it is killed is the last.
    """
    for kills in range(attempts):
        later = draw.choice(["0", f"{draw.random() * later_s:.4f}"])
        if not killed(root, arguments, at_change, draw.randint(1, changes), later):
            return kills
    assert not killed(root, arguments, at_change, sys.maxsize, "0")
    return attempts
