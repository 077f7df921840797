"""An environment whose failures concern one episode: they end it, and not the run.

It is used by one thread at a time, not always the same one. Closed while another thread still works in it (which may
hang), it is closed by that thread, as soon as it comes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from r2v_core.benchmarks.base import Environment, Task
from r2v_core.errors import TransientError
from r2v_core.teachers.budget import BudgetSpent

SHOWN = 300
"""Characters of a reason; an environment may say pages."""


class EpisodeFailed(Exception):
    """An environment crashed or gave no answer."""

    def __init__(self, episode_id: str, reason: str) -> None:
        super().__init__(f"{episode_id}: {reason}")
        self.episode_id = episode_id
        self.reason = reason


def reason(error: Exception) -> str:
    """Kind and first line of an error, as it is recorded."""
    lines = str(error).strip().splitlines()
    return f"environment: {type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:SHOWN]


class GuardedEnvironment:
    """All of an environment; its methods raise :class:`EpisodeFailed`, unless the error concerns the whole run."""

    def __init__(self, episode_id: str, task: Task, open_environment: Callable[[Task], Environment]) -> None:
        self.episode_id, self.task = episode_id, task
        self._open = open_environment
        self._environment: Environment | None = None
        self._in_use = threading.Lock()
        self._over = ""
        """Why it may not be used any more."""

    @property
    def closed(self) -> bool:
        """Whether nothing of it is open any more."""
        return bool(self._over) and self._environment is None

    def open(self) -> None:
        """Open it; to be called before everything else."""
        self._guarded(self._open_it)

    def _open_it(self) -> None:
        self._environment = self._open(self.task)

    def close(self) -> None:
        """Close it, now or once the thread that uses it comes back; safe to call twice."""
        self._over = self._over or "closed"
        self._close_if_over()

    def give_up(self, why: str) -> EpisodeFailed:
        """Wait no longer for the thread that uses it."""
        self._over = f"environment: {why}"
        return EpisodeFailed(self.episode_id, self._over)

    def __getattr__(self, name: str) -> Any:
        if self._over:
            raise EpisodeFailed(self.episode_id, self._over)
        value = getattr(self._environment, name)
        return (lambda *arguments: self._guarded(value, *arguments)) if callable(value) else value

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._over or not self._in_use.acquire(blocking=False):
            raise EpisodeFailed(self.episode_id, self._over or "environment: in use by another thread")
        try:
            return call(*arguments)
        except (BudgetSpent, TransientError, EpisodeFailed):
            raise
        except Exception as error:
            raise EpisodeFailed(self.episode_id, reason(error)) from error
        finally:
            self._in_use.release()
            self._close_if_over()

    def _close_if_over(self) -> None:
        """Close it where nobody uses it; who does comes here afterwards."""
        if self._over and self._in_use.acquire(blocking=False):
            try:
                environment, self._environment = self._environment, None
                if environment is not None:
                    with suppress(Exception):  # what it was needed for is over
                        environment.close()
            finally:
                self._in_use.release()
