"""Asking a model's API: several requests at once, each paid for once, patiently, within the run's budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.digest import canonical_json
from r2v_core.errors import R2VError
from r2v_core.teachers.anthropic_client import AnthropicClient
from r2v_core.teachers.budget import Budget, Usage, read_usage
from r2v_core.teachers.cache import ReplyCache
from r2v_core.teachers.chat import ChatTeacher, Reply
from r2v_core.teachers.context import TeacherContext
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.endpoints import Endpoint, Refused, endpoint
from r2v_core.teachers.names import TeacherEntry
from r2v_core.teachers.openai_client import OpenAIClient
from r2v_core.teachers.options import ApiOptions, OpenAIOptions
from r2v_core.teachers.patience import Patience
from r2v_core.teachers.prices import Price, load_prices
from r2v_core.teachers.replies import highest_tokens

MOST_NOTES = 20
"""Different oddities of replies that are said."""


class Client(Protocol):
    """One provider's SDK."""

    def ask(self, messages: list[Message]) -> Reply:
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
        answered: bool = False,
    ) -> None:
        """``answered``: whether the server has answered this run before, as when it is resumed."""
        self.client = client
        self.where = where
        self.options = options
        self.limits = limits
        self.cache = cache
        self.budget = budget
        self.unit_price = price
        self.log = log
        self._patience = Patience(where, limits, log, answered)
        self._noted: set[str] = set()

    def price(self, reply: Reply) -> float | None:
        """Dollars that a reply costs when it is paid for; None where the model's price is unknown."""
        return self.unit_price.of(reply.tokens_in, reply.tokens_out) if self.unit_price else None

    def ask(self, talks: Sequence[list[Message]]) -> list[Reply]:
        """Replies in the order of the chats; a request that is refused for what is in it gets one that says so.

        Raises:
            BudgetSpent: if the budget ends; what was answered until then is in the cache.
            R2VError: if the API refuses, or fails again and again.
        """
        requests = [self._request(messages) for messages in talks]
        keys = [canonical_json(request) for request in requests]
        unique = dict(zip(keys, requests, strict=True))
        found = {key: reply for key, request in unique.items() if (reply := self.cache.get(request)) is not None}
        missing = [key for key in unique if key not in found]
        self.budget.book_cached(len(talks) - len(missing))
        if missing:
            answers = self._at_once([unique[key] for key in missing])
            found |= dict(zip(missing, answers, strict=True))
        return [found[key] for key in keys]

    def _request(self, messages: list[Message]) -> dict[str, Any]:
        return {
            "provider": self.where.provider,
            "base_url": self.where.base_url,
            "model": self.where.model,
            **self.options.model_dump(exclude={"history_steps"}),
            "messages": messages,
        }

    def _at_once(self, requests: Sequence[dict[str, Any]]) -> list[Reply]:
        pool = ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="teacher")
        stop = threading.Event()  # of this call alone: what fails it says nothing about other callers' requests
        wait = True
        try:
            futures = [pool.submit(self._paid, request, stop) for request in requests]
            return [future.result() for future in futures]
        except Exception:
            stop.set()  # requests under way are seen through and kept, but not made again
            raise
        except BaseException:
            stop.set()
            wait = False  # asked to end: now
            raise
        finally:
            pool.shutdown(wait=wait, cancel_futures=True)

    def _paid(self, request: dict[str, Any], stop: threading.Event) -> Reply:
        """One request, booked and kept."""
        messages = request["messages"]
        highest = self.unit_price.of(highest_tokens(messages), self.options.max_tokens) if self.unit_price else 0.0
        with self.budget.call(highest) as booked:
            try:
                reply = self._patience.ask(lambda: self.client.ask(messages), stop)
            except Refused as error:
                self.log(f"warning: {error}")
                return Reply("", tokens_in=0, tokens_out=0, latency_s=0.0, refused=str(error))
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
            if reply.refused:
                self.log(f"warning: {reply.refused}")
                return reply
            if reply.note and reply.note not in self._noted and len(self._noted) < MOST_NOTES:
                self._noted.add(reply.note)
                self.log(f"warning: {self.where}: {reply.note} (reported once)")
            self.cache.put(request, reply)
        return reply


def make(
    name: str, entry: TeacherEntry, options: ApiOptions, limits: TeacherLimitsConfig, context: TeacherContext
) -> ChatTeacher:
    """A teacher behind an API.

    Raises:
        R2VError: for a missing key or SDK, a broken price table, or dollars to keep to for a model without a price.
    """
    where = endpoint(name, entry)
    price = load_prices(context.project).find(entry.provider, entry.model)
    if price is None:
        missing = f"configs/prices.yaml has no price of {entry.provider} model '{entry.model}'"
        if limits.budget_usd:
            raise R2VError(
                f"{context.role}.limits.budget_usd can't be kept: {missing}; add it, or limit budget_calls instead"
            )
        context.log(f"warning: {missing}: what this run costs is unknown")
    client: Client
    if isinstance(options, OpenAIOptions):
        client = OpenAIClient(where, options, limits.timeout_s, context.log, context.role)
    else:
        client = AnthropicClient(where, options, limits.timeout_s)
    api = Api(
        client,
        where,
        options,
        limits,
        ReplyCache(context.cache / "replies"),
        Budget(
            context.run_dir,
            limits.budget_calls or 0,
            limits.budget_usd or 0.0,
            context.rank,
            context.processes,
            context.role,
            context.usage,
            context.sharded,
        ),
        price,
        context.log,
        answered=read_usage(context.run_dir, context.usage).calls > 0,
    )
    return ChatTeacher(entry.provider, entry.model, api.ask, options.history_steps, api.price, context.action_form)
