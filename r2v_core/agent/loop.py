"""The closed loop: many episodes side by side, each step perturbed, decided, carried out and recorded.

The loop knows nothing of models or routers. A *driver* decides for many live episodes at once (so that it can batch);
the loop does the rest the same way for collection, router features and evaluation.

Where environments may work side by side, they do so in threads, and the episodes are two groups that take turns: while
the environments of one step, the driver decides for the other. Which episodes are in a group, and in which order, is a
matter of the jobs alone: what a model is asked together depends neither on the number of threads nor on who is faster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from r2v_core.agent.guarded import EpisodeFailed, GuardedEnvironment
from r2v_core.agent.live import Driver, Job, Live
from r2v_core.agent.stepping import carried_out, episode_record, started
from r2v_core.agent.workers import Pending, Threads, Workers
from r2v_core.benchmarks.base import Environment, Task
from r2v_core.perturbations import Noise
from r2v_core.trajectory import Episode


@dataclass
class _Group:
    """Episodes that are decided for together."""

    size: int
    live: list[Live] = field(default_factory=list)
    stepping: list[Pending[bool]] = field(default_factory=list)
    """One for each live episode while their environments step."""


@dataclass
class _Ended:
    """An episode that is over."""

    job: Job
    played: Live | None
    error: str | None = None


def play(
    jobs: Iterable[Job],
    driver: Driver,
    *,
    open_environment: Callable[[Task], Environment],
    noise: Noise,
    parallel: int,
    benchmark: str,
    seed: int,
    metadata: dict[str, Any],
    threads: Threads | None = None,
    on_round: Callable[[Sequence[Live]], None] = lambda live: None,
) -> Iterator[Episode]:
    """Play all jobs, at most ``parallel`` at a time, yielding each episode as it ends.

    An episode whose environment fails or hangs, or for which the teacher refuses to answer, ends there:
    ``metadata["error"]`` says why, and it is no success. The others go on.

    Args:
        noise: applied to jobs with a perturbation seed z; jobs without one are played clean.
        metadata: carried by every episode, below the job's own.
        threads: in which environments work; none unless given. How many there are changes no result; whether there
            are any changes what is decided together.
        on_round: called with the episodes of a round before each decision; what it raises ends the play.
    """
    queue = deque(jobs)
    groups = [_Group(size) for size in _sizes(min(parallel, len(queue)), 2 if threads and threads.count else 1)]
    workers = Workers(threads)
    opened: list[GuardedEnvironment] = []

    def new_environment(job: Job) -> GuardedEnvironment:
        opened[:] = [one for one in opened if not one.closed]
        opened.append(GuardedEnvironment(job.episode_id, job.task, open_environment))
        return opened[-1]

    try:
        while queue or any(group.live for group in groups):
            for group in groups:
                for ended in _turn(group, queue, driver, workers, new_environment, noise, on_round):
                    said = metadata | noise.world(ended.job.z)
                    yield episode_record(ended.job, ended.played, benchmark, seed, said, ended.error)
    finally:
        workers.end()
        for environment in opened:
            environment.close()


def _sizes(parallel: int, groups: int) -> list[int]:
    """Group sizes that differ by one at most, none of them 0."""
    return [size for i in range(groups) if (size := (parallel + groups - 1 - i) // groups)]


def _turn(
    group: _Group,
    queue: deque[Job],
    driver: Driver,
    workers: Workers,
    new_environment: Callable[[Job], GuardedEnvironment],
    noise: Noise,
    on_round: Callable[[Sequence[Live]], None],
) -> Iterator[_Ended]:
    """A group's turn, from the end of its last step to the beginning of its next."""
    yield from _stepped(group, workers)
    while True:
        yield from _filled_up(group, queue, workers, new_environment, noise)
        if not group.live:
            return
        on_round(group.live)
        try:
            choices = driver.decide(group.live)
            break
        except EpisodeFailed as failed:  # the others are decided anew; what models have said of them is known
            (broken,) = (one for one in group.live if one.job.episode_id == failed.episode_id)
            group.live = [one for one in group.live if one is not broken]
            broken.environment.close()
            yield _Ended(broken.job, broken, failed.reason)
    refused = [(one, choice.error) for one, choice in zip(group.live, choices, strict=True) if choice.error]
    accepted = [(one, choice) for one, choice in zip(group.live, choices, strict=True) if not choice.error]
    group.live = [one for one, _ in accepted]
    group.stepping = [
        workers.start(one.environment, partial(carried_out, one, choice, noise)) for one, choice in accepted
    ]
    for one, error in refused:
        one.environment.close()
        yield _Ended(one.job, one, error)


def _stepped(group: _Group, workers: Workers) -> Iterator[_Ended]:
    """Wait for a group's environments; what is over leaves it."""
    stepping = list(zip(group.live, group.stepping, strict=True))
    group.live, group.stepping = [], []
    for one, pending in stepping:
        error = None
        try:
            over = workers.result(pending)
        except EpisodeFailed as failed:
            over, error = True, failed.reason
        if over:
            one.environment.close()
            yield _Ended(one.job, one, error)
        else:
            group.live.append(one)


def _filled_up(
    group: _Group,
    queue: deque[Job],
    workers: Workers,
    new_environment: Callable[[Job], GuardedEnvironment],
    noise: Noise,
) -> Iterator[_Ended]:
    """Start episodes until a group has its size; what can't be started is over."""
    while jobs := [queue.popleft() for _ in range(min(group.size - len(group.live), len(queue)))]:
        environments = [new_environment(job) for job in jobs]
        starting = [
            workers.start(environment, partial(started, job, environment, workers, noise))
            for job, environment in zip(jobs, environments, strict=True)
        ]
        for job, environment, pending in zip(jobs, environments, starting, strict=True):
            try:
                group.live.append(workers.result(pending))
            except EpisodeFailed as failed:
                environment.close()
                yield _Ended(job, None, failed.reason)
