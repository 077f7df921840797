"""Progress and log lines: to the terminal, to the run's log file and, under Dagster, to its event log."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from r2v_core.console import say
from r2v_core.runs import processes, stopping


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


QUIET_S = 60.0
"""After so long without a line, a stage at work says so."""


class Reporter:
    """Says what a stage is doing. ``sink`` receives each line once more (Dagster's log, under Pipes)."""

    def __init__(self, stage: str, sink: Callable[[str], None] | None = None, every_s: float = 5.0) -> None:
        self.stage = stage
        self.sink = sink
        self.every_s = every_s
        self.at: Callable[[str, int, int], None] = lambda what, done, total: None
        """Called with every progress that is told."""
        self._began: dict[str, tuple[float, int]] = {}
        self._last = 0.0
        self._said = time.monotonic()
        self._tty = sys.stderr.isatty()

    def log(self, message: str) -> None:
        """One line for people. That they have closed the terminal is no reason to lose work."""
        self._said = time.monotonic()
        with suppress(OSError):
            say(f"[{self.stage}] {message}", error=True)
        if self.sink:
            self.sink(message)

    def progress(self, what: str, done: int, total: int, **facts: Any) -> None:
        """How far ``what`` is: count, share, rate, time left, and any facts (``success=0.8``).

        Called as often as one likes; a line is printed every few seconds, and for the last item always.

        Raises:
            Stopped: if the process was asked to end.
        """
        stopping.check()
        now = time.monotonic()
        if what not in self._began:
            self._began[what] = (now, done)
        if done < total and now - self._last < self.every_s:
            return
        self._last = now
        self.at(what, done, total)
        began, first = self._began[what]
        elapsed = max(now - began, 1e-9)
        rate = (done - first) / elapsed
        parts = [f"{what} {done}/{total} ({done / max(total, 1):.0%})"]
        parts += [
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
        ]
        if rate > 0:
            parts.append(f"{rate:.2f}/s")
            parts.append(f"{_duration((total - done) / rate)} left" if done < total else f"took {_duration(elapsed)}")
        self.log(" · ".join(parts))

    def working(self, message: str) -> None:
        """What is under way; said only where nothing has been for a minute, as when no item ends for long.

        Raises:
            Stopped: if the process was asked to end.
        """
        stopping.check()
        if time.monotonic() - self._said >= QUIET_S:
            self.log(message)


def open_reporter(stage: str) -> Reporter:
    """A reporter that also writes to Dagster when this process was started through Dagster Pipes and is the main one.

    The only place of ``r2v_core`` that knows an orchestrator may exist.
    """
    if not processes.is_main():
        return Reporter(f"{stage} {processes.own_name()}")
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        return Reporter(stage)
    from dagster_pipes import open_dagster_pipes

    context = open_dagster_pipes()
    atexit.register(context.close)  # tells Dagster that every message was sent
    return Reporter(stage, sink=context.log.info)
