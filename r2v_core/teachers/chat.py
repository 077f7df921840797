"""A language model as teacher: situations in, chats out, replies read, malformed ones asked about once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.teachers.base import Advice, Situation
from r2v_core.teachers.conversation import Message, ParsedAction, conversation, correction, read_action

Ask = Callable[[Sequence[list[Message]]], "list[Reply]"]
"""Answers chats, in order."""


@dataclass(frozen=True)
class Reply:
    """What a model said, and what that took."""

    text: str
    tokens_in: int
    tokens_out: int
    latency_s: float
    """Seconds the request took when it was made, also where the reply now comes from the cache."""
    cut: bool = False
    """Whether it ended at the limit of tokens."""
    note: str = ""
    """What was odd about it, for the log."""
    refused: str = ""
    """Why the request was refused; there is no text then, and nothing of it is kept."""

    def as_json(self) -> dict[str, Any]:
        """What is kept of a reply, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "refused"}


class ChatTeacher:
    """Asks a model for the next action of each situation.

    A malformed reply (empty, several lines, cut off) is asked about once more with the reason in the chat. If that one
    is malformed too, its best guess is played and the advice says so (``detail["malformed"]``): the environment's
    feedback deals with it. A request that was refused gets no action, and the advice says why (``error``).
    """

    def __init__(
        self,
        provider: str,
        model: str,
        ask: Ask,
        history_steps: int,
        price: Callable[[Reply], float | None],
        action_form: ActionForm,
    ) -> None:
        self.provider = provider
        self.model = model
        self.ask = ask
        self.history_steps = history_steps
        self.price = price
        self.action_form = action_form

    def act(self, situations: Sequence[Situation]) -> list[Advice]:
        """One action for each situation.

        Raises:
            R2VError: if the model can't be asked; BudgetSpent if the run's budget ends.
        """
        if not situations:
            return []
        talks = [conversation(situation, self.history_steps) for situation in situations]
        said = [[reply] for reply in self.ask(talks)]
        read = [self._read(replies[0]) for replies in said]
        wrong = [i for i, parsed in enumerate(read) if parsed.problem and not said[i][0].refused]
        if wrong:
            again = [correction(talks[i], said[i][0].text, read[i].problem or "") for i in wrong]
            for i, reply in zip(wrong, self.ask(again), strict=True):
                said[i].append(reply)
                read[i] = self._read(reply)
        return [self._advice(replies, parsed) for replies, parsed in zip(said, read, strict=True)]

    def _advice(self, replies: list[Reply], parsed: ParsedAction) -> Advice:
        refused = next((reply.refused for reply in replies if reply.refused), None)
        detail = {"malformed": parsed.problem} if parsed.problem and not refused else {}
        if len(replies) > 1:
            detail["asked_again"] = self._read(replies[0]).problem or ""
        prices = [self.price(reply) for reply in replies]
        if None in prices:
            detail["cost"] = "unknown"
        return Advice(
            action=parsed.action,
            tokens_in=sum(reply.tokens_in for reply in replies),
            tokens_out=sum(reply.tokens_out for reply in replies),
            cost_usd=sum(price or 0.0 for price in prices),
            latency_s=sum(reply.latency_s for reply in replies),
            detail=detail,
            error=refused,
        )

    def _read(self, reply: Reply) -> ParsedAction:
        parsed = read_action(reply.text, self.action_form, reply.cut)
        if parsed.problem and reply.cut:
            return ParsedAction(parsed.action, f"{parsed.problem} and was cut off at the limit of tokens")
        return parsed
