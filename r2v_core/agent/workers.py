"""Threads in which environments work side by side, and what becomes of one that never answers."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from r2v_core.benchmarks.base import Concurrency
from r2v_core.sandbox import boxes_end_with

T = TypeVar("T")
LOOK_S = 1.0
"""How often someone who waits for a result looks for environments that hang."""
GRACE_S = 5.0
"""What is left to work under way to come to an end when the run ends."""


class Owner(Protocol):
    """For whom a thread works: an environment, which no two threads may use at the same time."""

    def give_up(self, reason: str) -> Exception:
        """Nobody waits for it any more; what its user is told."""
        ...


@dataclass(frozen=True)
class Threads:
    """How many environments work at the same time, and how long one may take."""

    count: int = 0
    """0: none works in a thread; everything is done by whoever asks for its result, one thing after the other."""
    patience_s: float = float("inf")
    """Seconds after which work under way in a thread counts as hanging."""


def useful_threads(concurrency: Concurrency, parallel: int, processes: int = 1) -> int:
    """Threads for ``parallel`` environments of a benchmark; 0 where they can't work side by side.

    Args:
        concurrency: what the benchmark declares.
        processes: how many processes of this run share the machine's cores.
    """
    if concurrency == "serial":
        return 0
    return min(parallel if concurrency == "waiting" else max(len(os.sched_getaffinity(0)) // processes, 1), parallel)


class Pending(Generic[T]):
    """Something to do, and what came of it."""

    def __init__(self, owner: Owner, work: Callable[[], T]) -> None:
        self.owner, self.work = owner, work
        self.began: float | None = None
        self.done = threading.Event()
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do it; whatever is raised is kept."""
        try:
            self.value = self.work()
        except BaseException as error:
            self.error = error


class Workers:
    """The threads: daemons, so that one that hangs keeps no process from ending; it is replaced."""

    def __init__(self, threads: Threads | None = None) -> None:
        threads = threads or Threads()
        self.count, self.patience_s = threads.count, threads.patience_s
        self._changed = threading.Condition()
        self._waiting: deque[Pending[Any]] = deque()
        self._running: set[Pending[Any]] = set()
        self._idle = 0
        self._ending = threading.Event()

    def end(self) -> None:
        """Drop what has not begun, end the boxes of what has, and let it come to its end for a moment."""
        self._ending.set()
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, GRACE_S)

    def start(self, owner: Owner, work: Callable[[], T]) -> Pending[T]:
        """Have something done for an environment."""
        job = Pending(owner, work)
        if self.count:
            with self._changed:
                self._waiting.append(job)
                if len(self._waiting) > self._idle and self._idle + len(self._running) < self.count:
                    self._new_thread()
                self._changed.notify()
        return job

    def result(self, job: Pending[T]) -> T:
        """Wait for work and return what came of it, or raise what it raised.

        Raises:
            Exception: the owner's, if it was given up.
        """
        if not self.count:
            return job.work()
        while not job.done.wait(min(LOOK_S, self.patience_s)):
            self._give_up_hanging()
        if job.error is not None:
            raise job.error
        return cast(T, job.value)

    def results(self, pending: Sequence[Pending[T]]) -> list[T]:
        """Wait for several and return what came of each, or raise what the first that failed has raised.

        With threads, none of them is under way any more then.
        """
        if self.count:
            for job in pending:
                with suppress(Exception):
                    self.result(job)
        return [self.result(job) for job in pending]

    def _new_thread(self) -> None:
        self._idle += 1
        threading.Thread(target=self._serve, name="environments", daemon=True).start()

    def _serve(self) -> None:
        boxes_end_with(self._ending)
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._ending.is_set())
                if self._ending.is_set():
                    return
                job = self._waiting.popleft()
                job.began = time.monotonic()
                self._running.add(job)
                self._idle -= 1
                self._changed.release()
                try:
                    job.run()
                finally:
                    self._changed.acquire()
                if job not in self._running:  # it was given up, and another thread is here instead
                    return
                self._running.discard(job)
                self._idle += 1
                job.done.set()
                self._changed.notify_all()

    def _give_up_hanging(self) -> None:
        """End what has been under way for too long, whoever waits for it."""
        with self._changed:
            for job in [*self._running]:
                if job.began is not None and time.monotonic() - job.began > self.patience_s:
                    self._running.discard(job)
                    job.error = job.owner.give_up(f"no answer within {self.patience_s:g} s (episodes.patience_s)")
                    job.done.set()
                    self._new_thread()
