"""What the small model reads: one chat prompt per state, the same in training and in the closed loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from r2v_core.benchmarks.actions import headline
from r2v_core.config.schema import SLMConfig
from r2v_core.models.budget import cut_to, shares
from r2v_core.trajectory import Observation, Step

WEIGHTS = {"instructions": 6, "goal": 2, "history": 1, "result": 1, "state": 2}
"""Shares of the parts of a prompt that is too long; what a part does not need goes to the others."""


class Chat(Protocol):
    """How a language model is spoken to."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A chat as the text that the model goes on from, ending where the assistant's turn begins."""
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens added."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt, and what it leaves out."""

    text: str
    cut: dict[str, int] = field(default_factory=dict)
    """Part → tokens of it that did not fit; only parts that something was cut from."""


def render_prompt(
    chat: Chat,
    slm: SLMConfig,
    instructions: str,
    goal: str,
    history: Sequence[Step],
    observation: Observation,
) -> Prompt:
    """The prompt for the next action, ending where the assistant's turn begins.

    Shows the goal, the last ``slm.history_steps`` actions (of programs the first line), the feedback to the latest one,
    and the present state. If that exceeds ``slm.max_prompt_tokens``, older history goes first. If it is too long even
    without any, each part is cut at its end to its share of the room (:data:`WEIGHTS`), of history the oldest goes.
    """
    limit = slm.max_prompt_tokens
    recent = [headline(step.action) for step in history[len(history) - min(slm.history_steps, len(history)) :]]
    parts = {"instructions": instructions, "goal": goal, "result": observation.feedback, "state": observation.state}
    for skipped in range(len(recent) + 1):
        text = _render(chat, parts, recent[skipped:])
        if chat.count_tokens(text) <= limit:
            return Prompt(text, _lost(chat, {"history": _told(recent)}, {"history": _told(recent[skipped:])}))
    room = limit - chat.count_tokens(_render(chat, dict.fromkeys(parts, ""), []))
    while True:
        shown, kept = _within(chat, parts, recent, room)
        text = _render(chat, shown, kept)
        excess = chat.count_tokens(text) - limit
        if excess <= 0 or room <= 0:
            break
        room -= excess  # labels and joints take a few tokens, too
    return Prompt(text, _lost(chat, parts | {"history": _told(recent)}, shown | {"history": _told(kept)}))


def _within(chat: Chat, parts: Mapping[str, str], recent: Sequence[str], room: int) -> tuple[dict[str, str], list[str]]:
    """The parts and the latest actions, each within its share of the room."""
    needs = {part: chat.count_tokens(text) for part, text in {**parts, "history": _told(recent)}.items()}
    granted = shares(needs, WEIGHTS, max(room, 0))
    shown = {
        part: text if granted[part] >= needs[part] else cut_to(text, granted[part], chat.count_tokens)
        for part, text in parts.items()
    }
    kept = list(recent)
    while kept and chat.count_tokens(_told(kept)) > granted["history"]:
        del kept[0]
    return shown, kept


def _told(actions: Sequence[str]) -> str:
    return "; ".join(actions)


def _lost(chat: Chat, whole: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, int]:
    """Part → tokens that are shown no longer."""
    return {
        part: max(chat.count_tokens(text) - chat.count_tokens(shown[part]), 1)
        for part, text in whole.items()
        if shown[part] != text
    }


def _render(chat: Chat, parts: Mapping[str, str], done: Sequence[str]) -> str:
    lines = [f"Goal: {parts['goal']}"]
    if done:
        lines.append(f"Done: {_told(done)}")
    if parts["result"]:
        lines.append(f"Result: {parts['result']}")
    lines.append(parts["state"])
    return chat.render(
        [{"role": "system", "content": parts["instructions"]}, {"role": "user", "content": "\n".join(lines)}]
    )
