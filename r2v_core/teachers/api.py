"""Asking a model's API: several requests at once, each paid for once, patiently, within the run's budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.digest import canonical_json
from r2v_core.errors import R2VError, TransientError
from r2v_core.teachers.anthropic_client import AnthropicClient
from r2v_core.teachers.budget import Budget, Usage
from r2v_core.teachers.cache import ReplyCache
from r2v_core.teachers.chat import ChatTeacher, Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.endpoints import Endpoint, Transient, endpoint
from r2v_core.teachers.names import TeacherEntry
from r2v_core.teachers.openai_client import OpenAIClient, highest_tokens
from r2v_core.teachers.options import ApiOptions, OpenAIOptions
from r2v_core.teachers.place import Place
from r2v_core.teachers.prices import Price, load_prices

LONGEST_BACKOFF_S = 60.0
LONGEST_WAIT_S = 600.0
"""A server that asks for a longer pause is not waited for."""


class Client(Protocol):
    """One provider's SDK."""

    def ask(self, talk: list[Message]) -> Reply:
        """The reply to a chat; raises Transient if asking again may help, R2VError if not."""
        ...


class Api:
    """Answers chats: equal ones once, from the cache where there is a reply, at most ``concurrency`` at a time."""

    def __init__(
        self,
        client: Client,
        where: Endpoint,
        options: ApiOptions,
        limits: TeacherLimitsConfig,
        cache: ReplyCache,
        budget: Budget,
        price: Price | None,
        log: Callable[[str], None],
    ) -> None:
        self.client = client
        self.where = where
        self.options = options
        self.limits = limits
        self.cache = cache
        self.budget = budget
        self.unit_price = price
        self.log = log
        self._stop = threading.Event()

    def price(self, reply: Reply) -> float | None:
        """Dollars that a reply costs when it is paid for; None where the model's price is unknown."""
        return self.unit_price.of(reply.tokens_in, reply.tokens_out) if self.unit_price else None

    def ask(self, talks: Sequence[list[Message]]) -> list[Reply]:
        """Replies in the order of the chats.

        Raises:
            BudgetSpent: if the budget ends; what was answered until then is in the cache.
            R2VError: if the API refuses, or fails again and again.
        """
        requests = [self._request(talk) for talk in talks]
        keys = [canonical_json(request) for request in requests]
        unique = dict(zip(keys, requests, strict=True))
        found = {key: reply for key, request in unique.items() if (reply := self.cache.get(request)) is not None}
        missing = [key for key in unique if key not in found]
        self.budget.book_cached(len(talks) - len(missing))
        if missing:
            answers = self._at_once([unique[key] for key in missing])
            found |= dict(zip(missing, answers, strict=True))
        return [found[key] for key in keys]

    def _request(self, talk: list[Message]) -> dict[str, Any]:
        return {
            "provider": self.where.provider,
            "base_url": self.where.base_url,
            "model": self.where.model,
            **self.options.model_dump(exclude={"history_steps"}),
            "messages": talk,
        }

    def _at_once(self, requests: Sequence[dict[str, Any]]) -> list[Reply]:
        pool = ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="teacher")
        wait = True
        try:
            futures = [pool.submit(self._paid, request) for request in requests]
            return [future.result() for future in futures]
        except Exception:
            self._stop.set()  # requests under way are seen through and kept, but not made again
            raise
        except BaseException:
            self._stop.set()
            wait = False  # asked to end: now
            raise
        finally:
            pool.shutdown(wait=wait, cancel_futures=True)
            if wait:
                self._stop.clear()

    def _paid(self, request: dict[str, Any]) -> Reply:
        """One request, booked and kept."""
        talk = request["messages"]
        highest = self.unit_price.of(highest_tokens(talk), self.options.max_tokens) if self.unit_price else 0.0
        with self.budget.call(highest) as booked:
            reply = self._patiently(talk)
            self.cache.put(request, reply)
            price = self.price(reply)
            booked.append(
                Usage(
                    calls=1,
                    tokens_in=reply.tokens_in,
                    tokens_out=reply.tokens_out,
                    spent_usd=price or 0.0,
                    unpriced=int(price is None),
                )
            )
        return reply

    def _patiently(self, talk: list[Message]) -> Reply:
        """One request, made again after transient errors with growing pauses, or those that the server asks for."""
        limits = self.limits
        backoff = wait_random_exponential(multiplier=limits.backoff_s, max=LONGEST_BACKOFF_S)

        def wait(state: RetryCallState) -> float:
            assert state.outcome is not None
            error = state.outcome.exception()
            asked = error.retry_after_s if isinstance(error, Transient) else None
            return max(backoff(state), asked or 0.0)

        def before_sleep(state: RetryCallState) -> None:
            assert state.outcome is not None and state.next_action is not None
            self.log(
                f"{self.where}: {state.outcome.exception()}; attempt {state.attempt_number + 1} of {limits.attempts} "
                f"in {state.next_action.sleep:.1f} s"
            )

        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(Transient),
                stop=stop_after_attempt(limits.attempts) | stop_when_event_set(self._stop),
                wait=wait,
                sleep=sleep_using_event(self._stop),
                before_sleep=before_sleep,
                reraise=True,
            ):
                with attempt:
                    return self._once(talk)
        except Transient as error:
            raise TransientError(
                f"{self.where}: {error}, in {limits.attempts} attempts; see that the server "
                "runs and is reachable, then run the same command again: nothing is asked twice"
            ) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, talk: list[Message]) -> Reply:
        try:
            return self.client.ask(talk)
        except Transient as error:
            if (error.retry_after_s or 0.0) > LONGEST_WAIT_S:
                raise R2VError(
                    f"{self.where}: {error}, and asks for a pause of {error.retry_after_s:.0f} s; run the same command "
                    "again after it: nothing is asked twice"
                ) from None
            raise


def make(name: str, entry: TeacherEntry, options: ApiOptions, limits: TeacherLimitsConfig, place: Place) -> ChatTeacher:
    """A teacher behind an API.

    Raises:
        R2VError: for a missing key or SDK, a broken price table, or dollars to keep to for a model without a price.
    """
    where = endpoint(name, entry)
    price = load_prices(place.project).find(entry.provider, entry.model)
    if price is None:
        missing = f"configs/prices.yaml has no price of {entry.provider} model '{entry.model}'"
        if limits.budget_usd:
            raise R2VError(
                f"{place.role}.limits.budget_usd can't be kept: {missing}; add it, or limit budget_calls instead"
            )
        place.log(f"warning: {missing}: what this run costs is unknown")
    client: Client
    if isinstance(options, OpenAIOptions):
        client = OpenAIClient(where, options, limits.timeout_s)
    else:
        client = AnthropicClient(where, options, limits.timeout_s)
    api = Api(
        client,
        where,
        options,
        limits,
        ReplyCache(place.cache / "replies"),
        Budget(
            place.run_dir,
            limits.budget_calls or 0,
            limits.budget_usd or 0.0,
            place.rank,
            place.processes,
            place.role,
            place.usage,
        ),
        price,
        place.log,
    )
    return ChatTeacher(entry.provider, entry.model, api.ask, options.history_steps, api.price, place.action_form)
