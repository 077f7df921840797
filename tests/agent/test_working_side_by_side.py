"""Environments in threads: at work at the same time and while others are decided for, with one result however many."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from r2v_core.agent.live import Choice, Job, Live, each
from r2v_core.agent.loop import play
from r2v_core.agent.workers import Threads, useful_threads
from r2v_core.benchmarks.base import Environment, Outcome, Task
from r2v_core.benchmarks.once import once, once_property
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise
from r2v_core.trajectory import Episode, Observation, episodes_digest

LONG_S = 30.0
"""As long as a thread waits here for another one before the test fails."""


class Walk:
    """An environment that ends after some steps, and does what the test wants in each of them."""

    def __init__(self, task: Task, at_step: Callable[[Walk], None] = lambda walk: None) -> None:
        self.task, self.at_step, self.done, self.closed = task, at_step, 0, 0
        self.used = threading.Lock()

    def _outcome(self) -> Outcome:
        over = self.done == self.task.options["steps"]
        return Outcome(observation=Observation(state=f"{self.done}"), done=over, success=over)

    def reset(self) -> Outcome:
        return self._outcome()

    def step(self, action: str) -> Outcome:
        with self.used:
            self.at_step(self)
            self.done += 1
            return self._outcome()

    def admissible(self) -> list[str]:
        return ["go"]

    def hard_negatives(self) -> list[str]:
        return []

    def would_progress(self, action: str) -> bool | None:
        self.at_step(self)
        return True

    def expert_action(self) -> str | None:
        return "go"

    def close(self) -> None:
        assert self.used.acquire(blocking=False), "closed while it is in use"
        self.closed += 1
        self.used.release()


class Together:
    """A driver whose actions tell who was decided for together, and in which order, as a batch of a model might."""

    def __init__(self, asks: bool = False) -> None:
        self.asks, self.decided = asks, 0

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        self.decided += 1
        if self.asks:
            assert each(live, lambda one: one.environment.would_progress("go")) == [True] * len(live)
        batch = digest_of([(one.job.episode_id, one.step, self.decided) for one in live])
        return [Choice(f"{one.job.episode_id} {batch}", "slm") for one in live]


def task(number: int, steps: int) -> Task:
    return Task(
        task_id=f"t{number}", template_id=f"t{number}", benchmark="b", family="f", goal="g", split="test", max_steps=9,
        content="c", options={"steps": steps},
    )  # fmt: skip


def played(
    steps: Sequence[int],
    threads: Threads,
    at_step: Callable[[Walk], None],
    driver: Together | None = None,
    parallel: int = 6,
) -> tuple[list[Episode], list[Walk]]:
    opened: list[Walk] = []

    def open_environment(task: Task) -> Environment:
        opened.append(Walk(task, at_step))
        return opened[-1]

    jobs = [Job(f"e{n:02}", task(n, count)) for n, count in enumerate(steps)]
    found = play(
        jobs, driver or Together(), open_environment=open_environment, noise=Noise.none(), parallel=parallel,
        benchmark="b", seed=1, metadata={}, threads=threads,
    )  # fmt: skip
    return sorted(found, key=lambda episode: episode.episode_id), opened


STEPS = [3, 1, 5, 2, 2, 4, 1, 1, 6, 2, 3, 1, 2]


def test_how_many_threads_there_are_changes_nothing() -> None:
    def stumble(walk: Walk) -> None:
        time.sleep(random.random() / 100)

    digests = {episodes_digest(played(STEPS, Threads(count), stumble)[0]) for count in (1, 2, 4, 4, 6)}
    assert len(digests) == 1
    other, _ = played(STEPS, Threads(4), stumble, parallel=4)
    assert episodes_digest(other) not in digests  # what is decided together shows in the digest


@pytest.mark.parametrize("asks", [False, True])
def test_the_environments_of_a_group_are_at_work_at_the_same_time(asks: bool) -> None:
    meeting = threading.Barrier(3)
    found, opened = played([4] * 6, Threads(6), lambda walk: bool(meeting.wait(LONG_S)) and None, Together(asks))
    assert all(episode.success for episode in found) and [walk.closed for walk in opened] == [1] * 6


def test_one_group_is_decided_for_while_the_other_is_at_work() -> None:
    driver = Together()

    def wait_for_a_decision(walk: Walk) -> None:
        """The driver's next decision is for others: these here are at work."""
        before, until = driver.decided, time.monotonic() + LONG_S
        while driver.decided <= before and driver.decided < 4:
            assert time.monotonic() < until, "nobody else was decided for"
            time.sleep(0.001)

    found, _ = played([2] * 4, Threads(4), wait_for_a_decision, driver, parallel=4)
    assert [episode.error for episode in found] == [None] * 4


@pytest.mark.parametrize("asks", [False, True])
def test_a_crash_and_a_hang_end_their_own_episodes(asks: bool) -> None:
    released = threading.Event()

    def trouble(walk: Walk) -> None:
        if walk.task.task_id == "t2" and walk.done == 1:
            raise RuntimeError("boom")
        if walk.task.task_id in ("t5", "t8"):
            released.wait(LONG_S)

    found, opened = played(STEPS, Threads(2, patience_s=0.5), trouble, Together(asks))
    assert {episode.episode_id: episode.error for episode in found if episode.error} == {
        "e02": "environment: RuntimeError: boom",
        "e05": "environment: no answer within 0.5 s (episodes.patience_s)",
        "e08": "environment: no answer within 0.5 s (episodes.patience_s)",
    }
    assert [episode.success for episode in found] == [n not in (2, 5, 8) for n in range(len(STEPS))]
    assert [len(episode.steps) for episode in found] == [
        {2: 1, 5: 0, 8: 0}.get(n, count) for n, count in enumerate(STEPS)
    ]
    closed = {walk.task.task_id: walk.closed for walk in opened}
    assert closed == {f"t{n}": int(n not in (5, 8)) for n in range(len(STEPS))}
    released.set()  # those that hung are closed by the threads that they had kept
    until = time.monotonic() + LONG_S
    while [walk.closed for walk in opened] != [1] * len(opened):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_concerns_the_whole_run_ends_it_and_nothing_stays_open() -> None:
    class Refused(R2VError):
        pass

    def refuse(live: Sequence[Live]) -> list[Choice]:
        raise Refused

    driver, opened = Together(), []

    def open_environment(task: Task) -> Environment:
        opened.append(Walk(task, lambda walk: time.sleep(0.01)))
        return opened[-1]

    jobs = [Job(f"e{n}", task(n, 5)) for n in range(6)]
    episodes = play(
        jobs, driver, open_environment=open_environment, noise=Noise.none(), parallel=6, benchmark="b", seed=1,
        metadata={}, threads=Threads(3),
    )  # fmt: skip
    driver.decide, decide = (lambda live: refuse(live) if driver.decided == 3 else decide(live)), driver.decide  # type: ignore[method-assign]
    with pytest.raises(Refused):
        list(episodes)
    assert len(opened) == 6 and [walk.closed for walk in opened] == [1] * 6


STOPPED = """
import os, sys
from r2v_core.agent import loop, workers
from r2v_core.perturbations import Noise
from r2v_core.runs.stopping import Stopped, listening
from r2v_core.sandbox import Limits, run
from tests.agent.test_working_side_by_side import Together, Walk, task

def box(walk):
    os.write(1, b"at work\\n")
    run(["/bin/sleep", sys.argv[1]], limits=Limits(wall_s=600))

jobs = [loop.Job(f"e{n}", task(n, 2)) for n in range(4)]
try:
    with listening():
        list(loop.play(jobs, Together(), open_environment=lambda task: Walk(task, box), noise=Noise.none(), parallel=4,
                       benchmark="b", seed=1, metadata={}, threads=workers.Threads(4)))
except Stopped as stop:
    print("stopped", flush=True)
    sys.exit(stop.status)
"""


def test_a_signal_ends_what_is_at_work_in_boxes() -> None:
    mark = f"600.0{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", STOPPED, mark], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(4)] == ["at work\n"] * 4
        until = time.monotonic() + LONG_S
        while len(sleeping(mark)) < 4:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=LONG_S)[0] == "stopped\n"
        assert process.returncode == 128 + signal.SIGTERM and sleeping(mark) == []
    finally:
        process.kill()


def sleeping(mark: str) -> list[int]:
    """Processes whose program is a sleep of so long."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes() == b"/bin/sleep\0" + mark.encode() + b"\0":
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("concurrency", "parallel", "processes", "threads"),
    [
        ("serial", 24, 1, 0),
        ("waiting", 24, 2, 24),
        ("computing", 24, 1, 3),
        ("computing", 2, 1, 2),
        ("computing", 9, 4, 1),
    ],
)
def test_as_many_threads_as_are_of_use(
    monkeypatch: pytest.MonkeyPatch, concurrency: Any, parallel: int, processes: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})
    assert useful_threads(concurrency, parallel, processes) == threads


def test_what_several_ask_at_the_same_time_is_worked_out_once() -> None:
    meeting, worked_out = threading.Barrier(2), []

    @once(8)
    def answer(key: str) -> str:
        worked_out.append(key)
        meeting.wait(LONG_S)  # different questions are worked on at the same time
        return key.upper()

    class Thing:
        @once_property
        def value(self) -> int:
            worked_out.append("value")
            meeting.wait(LONG_S)
            return id(self)

    one, other = Thing(), Thing()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, "abababab")) == [*"ABABABAB"] and sorted(worked_out) == ["a", "b"]
        assert list(pool.map(lambda thing: thing.value, [one, other] * 4)) == [id(one), id(other)] * 4
    assert worked_out[2:] == ["value", "value"]


def test_a_failure_is_not_remembered() -> None:
    tried = []

    @once(8)
    def answer(key: str) -> str:
        tried.append(key)
        if len(tried) == 1:
            raise R2VError("not yet")
        return key

    with pytest.raises(R2VError):
        answer("a")
    assert answer("a") == answer("a") == "a" and tried == ["a", "a"]
