"""A stage that is killed (SIGKILL) at a chosen record, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

from r2v_core.runs.jsonl import JsonlStore, to_json
from r2v_core.stages.cli import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["r2v_core.stages.rollouts", "r2v_core.stages.train_router", "r2v_core.stages.collect"])


def _attempt(root: Path, arguments: list[str], kill_at: int, moment: str) -> None:
    """Run a stage to its end, or until it appends its n-th record: to a result file or to what a model said."""
    os.environ |= {"R2V_PROJECT": str(root), "OMP_NUM_THREADS": "1"}
    os.chdir(root)
    append, left = JsonlStore.append, kill_at

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
    raise SystemExit(main(arguments[0], arguments[1:]))


def run_with_kills(root: Path, arguments: list[str], draw: random.Random, at_most: int) -> int:
    """Run a stage again and again, killed at random records, until it has finished; the number of kills."""
    kills = 0
    while True:
        moment = draw.choice(["before", "half written", "written"])
        kill_at = draw.randint(2, at_most)  # the first record is always written, so every attempt gets on
        process = _SERVER.Process(target=_attempt, args=(root, arguments, kill_at, moment))
        process.start()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        kills += 1
