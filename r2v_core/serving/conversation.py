"""From the messages of a chat to what the agent knows: instructions, goal, what it saw and did.

The form is that of :mod:`r2v_core.teachers.conversation`. What a client can't say in one text, it can say in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from r2v_core.digest import digest_of
from r2v_core.trajectory import Observation

_SYSTEM = ("system", "developer")
_GOAL, _DONE, _NOTHING, _NO_ACTION = "Goal: ", "\nDone so far: ", "(nothing)", "(no action)"
_PROMPT = re.compile(r"Goal: (.*?)\nDone: ([^\n]*)\n(?:Result: ([^\n]*)\n)?(.*)", re.DOTALL)
"""What :mod:`r2v_core.models.prompt` writes from the second step on."""


class BadMessages(Exception):
    """Messages that are no conversation of an agent."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where


@dataclass(frozen=True)
class Conversation:
    """An episode as its agent tells it, up to the observation that wants an action."""

    instructions: str | None
    """Of the system; None where there are none."""
    goal: str
    unseen: tuple[str, ...]
    """Actions before the first turn that is shown, where the client only names them."""
    observations: tuple[Observation, ...]
    actions: tuple[str, ...]
    """One fewer than observations."""
    prefixes: tuple[str, ...]
    """For each observation a digest of the conversation up to it."""

    @property
    def step(self) -> int:
        """Index of the step that wants an action."""
        return len(self.unseen) + len(self.actions)


def read_conversation(messages: Any) -> Conversation:
    """The conversation in a request's ``messages``.

    The system's messages come first, then user and assistant take turns, the user first and last. The first user turn
    is ``Goal: <goal>``, perhaps a line ``Done so far: <action>; <action>`` and, after a blank line (the last one of the
    turn), the observation. Later user turns are observations, the assistant's are actions. A chat of one user turn may
    also be the small model's own prompt, with ``Done:`` and ``Result:``.

    An observation is feedback on the latest action, a line break and the state. In one text the border is found so: a
    text that is or ends with a state shown before shows that state again, and what stands before it is feedback; else
    the first line is feedback if there are more, except at the first step of an episode, where all is state. Content in
    two text parts says it exactly: ``[goal, state]`` in the first turn, ``[feedback, state]`` later.

    Raises:
        BadMessages: naming the message.
    """
    if not isinstance(messages, list) or not messages:
        raise BadMessages("messages", "expected a list of messages, the last one the user's")
    turns = [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]
    opening = next((i for i, (role, _) in enumerate(turns) if role not in _SYSTEM), len(turns))
    for i, (role, _) in enumerate(turns[opening:]):
        expected = "assistant" if i % 2 else "user"
        if role != expected:
            raise BadMessages(
                f"messages[{opening + i}].role", f"expected '{expected}' (user and assistant take turns), not '{role}'"
            )
    if len(turns) == opening or turns[-1][0] != "user":
        raise BadMessages("messages", "the last one has to be the user's: what the agent sees now")
    said = [parts for _, parts in turns[opening:]]
    goal, unseen, first = _opening(said[0], f"messages[{opening}].content")
    observations: list[Observation] = []
    for parts in [first, *said[2::2]]:
        observations.append(_observation(parts, observations, begins=not observations and not unseen))
    return Conversation(
        instructions="\n\n".join("\n".join(parts) for _, parts in turns[:opening]) if opening else None,
        goal=goal,
        unseen=tuple(unseen),
        observations=tuple(observations),
        actions=tuple("" if action == [_NO_ACTION] else "\n".join(action) for action in said[1::2]),
        prefixes=tuple(_prefixes(turns, opening)),
    )


def _turn(message: Any, where: str) -> tuple[str, list[str]]:
    """Role and text parts of a message."""
    if not isinstance(message, dict):
        raise BadMessages(where, 'expected {"role": …, "content": …}')
    role, content = message.get("role"), message.get("content")
    if role not in (*_SYSTEM, "user", "assistant"):
        raise BadMessages(f"{where}.role", f"expected system, user or assistant, not {role!r}")
    if role == "assistant" and content is None:
        content = ""
    parts = [{"text": content}] if isinstance(content, str) else content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadMessages(f"{where}.content", "expected a text, or a list of text parts")
    said = [str(text) for text in texts]
    try:
        "".join(said).encode()
    except UnicodeEncodeError:
        raise BadMessages(f"{where}.content", "half of a character (a lone surrogate), which no text holds") from None
    return role, said


def _opening(parts: Sequence[str], where: str) -> tuple[str, list[str], list[str]]:
    """Goal, actions that are only named, and the parts of the first observation."""
    head, *seen = parts
    if not seen and (prompt := _PROMPT.fullmatch(head)):
        goal, done, feedback, state = prompt.groups()
        seen = [feedback or "", state]
    else:
        if not seen:
            head, _, state = head.rpartition("\n\n") if "\n\n" in head else head.partition("\n")
            seen = [state]
        elif len(seen) == 1:
            seen = ["", *seen]
        head = head.removeprefix(_GOAL)
        goal, _, done = head.rpartition(_DONE) if _DONE in head else (head, "", "")
    if not goal.strip():
        raise BadMessages(where, "there is no goal; the first user turn is 'Goal: …', a blank line, what is seen")
    return goal, ["" if action == _NO_ACTION else action for action in done.split("; ")] if done else [], seen


def _observation(parts: Sequence[str], before: Sequence[Observation], begins: bool) -> Observation:
    if len(parts) > 1:
        return Observation(feedback=parts[0], state="\n".join(parts[1:]))
    text = "" if parts[0] == _NOTHING else parts[0]
    known = sorted({seen.state for seen in before if seen.state}, key=len, reverse=True)
    for state in known:
        if text == state or text.endswith(f"\n{state}"):
            return Observation(feedback=text[: -len(state)].removesuffix("\n"), state=state)
    feedback, border, state = text.partition("\n")
    if begins or not border:
        return Observation(state=text)
    return Observation(feedback=feedback, state=state)


def _prefixes(turns: Sequence[tuple[str, list[str]]], opening: int) -> Iterator[str]:
    """A digest of all messages up to each user turn; each is made of the one before."""
    digest = ""
    for i, turn in enumerate(turns):
        digest = digest_of([digest, *turn])
        if i >= opening and turn[0] == "user":
            yield digest
