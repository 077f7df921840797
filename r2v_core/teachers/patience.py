"""Asking again: in growing pauses, or those that the server asks for, until attempts and time are both used up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.errors import TransientError
from r2v_core.teachers.chat import Reply
from r2v_core.teachers.endpoints import Endpoint, Transient

LONGEST_BACKOFF_S = 60.0
LONGEST_WAIT_S = 600.0
"""A server that asks for a pause longer than this, and than ``limits.patience_s``, is not waited for."""
SAID_EVERY_S = 30.0
"""Seconds in which the same trouble is said once: an outage of an hour is a page of the log, not a book."""


class Patience:
    """Makes requests until they are answered; what one of them is told of the server, all others under way heed.

    A request fails once it was made ``limits.attempts`` times and, where the server is known to be there,
    ``limits.patience_s`` are over: an outage is waited out, a wrong address is not. A server is known that has answered
    this run before, that is busy (a rate limit, an overload), or that says how long to wait.
    """

    def __init__(
        self,
        where: Endpoint,
        limits: TeacherLimitsConfig,
        log: Callable[[str], None],
        answered: bool = False,
    ) -> None:
        self.where = where
        self.limits = limits
        self.log = log
        self.answered = answered
        self._not_before = 0.0
        self._said: dict[str, float] = {}

    def ask(self, once: Callable[[], Reply], stop: threading.Event) -> Reply:
        """What ``once`` returns, called again while it raises Transient and there is hope, until ``stop`` is set.

        Raises:
            TransientError: with the last trouble, when there is none. What else ``once`` raises is passed on.
        """
        made = 0
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(Transient),
                stop=lambda state: stop.is_set() or self._enough(state),
                wait=self._pause,
                sleep=sleep_using_event(stop),
                before_sleep=self._say,
                reraise=True,
            ):
                self._hold(stop)
                made = attempt.retry_state.attempt_number
                with attempt:
                    reply = once()
                    self.answered = True
                    return reply
        except Transient as error:
            if self._too_long(error):
                raise TransientError(
                    f"{self.where}: {error}, and asks for a pause of {error.retry_after_s:.0f} s; run the same command "
                    "again after it: nothing is asked twice"
                ) from None
            raise TransientError(
                f"{self.where}: {error}, in {made} attempts; see that the server "
                "runs and is reachable, then run the same command again: nothing is asked twice"
            ) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _hold(self, stop: threading.Event) -> None:
        """Wait while the server has asked for a pause, whoever it was that it told."""
        while not stop.is_set() and (left := self._not_before - time.monotonic()) > 0:
            stop.wait(left)

    def _too_long(self, error: Transient) -> bool:
        return (error.retry_after_s or 0.0) > max(LONGEST_WAIT_S, self.limits.patience_s)

    def _enough(self, state: RetryCallState) -> bool:
        error = _trouble(state)
        assert state.seconds_since_start is not None
        known = self.answered or error.busy or error.retry_after_s is not None
        late = not known or state.seconds_since_start >= self.limits.patience_s
        return (state.attempt_number >= self.limits.attempts and late) or self._too_long(error)

    def _pause(self, state: RetryCallState) -> float:
        backoff = wait_random_exponential(multiplier=self.limits.backoff_s, max=LONGEST_BACKOFF_S)(state)
        asked = _trouble(state).retry_after_s
        if asked is None:
            return backoff
        self._not_before = max(self._not_before, time.monotonic() + asked)
        return max(backoff, asked + random.uniform(0, self.limits.backoff_s))  # not all at the same moment

    def _say(self, state: RetryCallState) -> None:
        assert state.next_action is not None
        error, now = str(_trouble(state)), time.monotonic()
        if now - self._said.get(error, -SAID_EVERY_S) < SAID_EVERY_S:
            return
        self._said[error] = now
        self.log(
            f"{self.where}: {error}; attempt {state.attempt_number + 1} in {state.next_action.sleep:.1f} s "
            f"(limits: {self.limits.attempts} attempts, {self.limits.patience_s:g} s)"
        )


def _trouble(state: RetryCallState) -> Transient:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, Transient)
    return error
