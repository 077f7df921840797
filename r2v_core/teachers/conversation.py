"""What a language-model teacher reads, and how its reply is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from r2v_core.benchmarks.actions import ActionForm, program
from r2v_core.benchmarks.spoken import spoken
from r2v_core.teachers.base import Situation
from r2v_core.teachers.reply_forms import json_action, react_action
from r2v_core.trajectory import Step

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": …}``; after the system's, user and assistant take turns."""

_MARKED = (
    re.compile(r"<action>(.*?)</action>", re.DOTALL | re.IGNORECASE),
    re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE),
)
_BLOCK = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_LABEL = re.compile(r"(?:(?:next |my )?(?:action|command|answer)\s*:|>)\s*", re.IGNORECASE)
_QUOTES = ("`", '"', "'", "“”")


def conversation(situation: Situation, history_steps: int) -> list[Message]:
    """The chat up to the present observation: the agent's instructions, goal, what it saw and did.

    The latest ``history_steps`` steps appear as turns, each with what the agent saw then (noise included); of earlier
    ones only the actions are named.
    """
    history = list(situation.history)
    shown = history[len(history) - min(history_steps, len(history)) :]
    earlier = history[: len(history) - len(shown)]
    opening = f"Goal: {situation.goal}"
    if earlier:
        opening += "\nDone so far: " + "; ".join(_said(step) for step in earlier)
    messages = [{"role": "system", "content": situation.instructions}]
    for step in shown:
        messages.append({"role": "user", "content": step.observation.text or "(nothing)"})
        messages.append({"role": "assistant", "content": _said(step)})
    messages.append({"role": "user", "content": situation.observation.text or "(nothing)"})
    messages[1]["content"] = f"{opening}\n\n{messages[1]['content']}"
    return messages


def _said(step: Step) -> str:
    return step.action or "(no action)"


@dataclass(frozen=True)
class ParsedAction:
    """The action in a reply; ``problem`` says why it is none that was meant as one."""

    action: str
    problem: str | None = None


def read_action(reply: str, form: ActionForm = "line", cut: bool = False) -> ParsedAction:
    """The action in a teacher's reply.

    Reasoning is passed over, and what stands outside of the model's turn (:mod:`r2v_core.benchmarks.spoken`). What
    stands in ``<action>…</action>`` is taken as it is, the last one if there are several; then a fenced block (the
    program where actions are code, else the last one), a JSON object with the action, or the action of ReAct's
    ``Thought: … Action: …``. Anything else has to be one line, unless actions are code; a label (``Action:``) and
    quotes around the line are left out. A reply of several lines is a problem, and its first line the best guess; where
    actions are code, so is one that ended at the limit of tokens (``cut``) before its block did.
    """
    text, problem = spoken(reply)
    if problem:
        return ParsedAction("", problem)
    for marked in _MARKED:
        if found := [match.strip() for match in marked.findall(text)]:
            return ParsedAction(found[-1]) if found[-1] else ParsedAction("", "the marked action is empty")
    blocks = [match.strip() for match in _BLOCK.findall(text)]
    if form == "line" and blocks:
        if not blocks[-1]:
            return ParsedAction("", "the marked action is empty")
        if json_action(blocks[-1]) is None:
            return ParsedAction(blocks[-1])
        text = blocks[-1]
    for known in (json_action, react_action):
        if (read := known(text)) is not None:
            text, problem = read
            if problem:
                return ParsedAction("", problem)
    return _program(text, cut) if form == "code" else _line(text)


def _program(text: str, cut: bool) -> ParsedAction:
    action = program(text)
    if not action:
        return ParsedAction("", "the reply is empty")
    ended = not cut or _BLOCK.search(text) is not None
    return ParsedAction(
        _bare(action) if "\n" not in action else action, None if ended else "the program did not come to an end"
    )


def _line(text: str) -> ParsedAction:
    lines = [line for line in map(_bare, text.splitlines()) if line]
    if not lines:
        return ParsedAction("", "the reply is empty")
    return ParsedAction(lines[0], f"the reply has {len(lines)} lines" if len(lines) > 1 else None)


def _bare(line: str) -> str:
    """A line without label and quotes around it."""
    line = line.strip()
    if label := _LABEL.match(line):
        line = line[label.end() :].strip()
    for pair in _QUOTES:
        if len(line) > 1 and line[0] == pair[0] and line[-1] == pair[-1] and pair[0] not in line[1:-1]:
            return line[1:-1].strip()
    return line


def correction(messages: list[Message], reply: str, problem: str) -> list[Message]:
    """The chat that asks once more after a reply that could not be used."""
    return [
        *messages,
        {"role": "assistant", "content": reply.strip() or "(nothing)"},
        {
            "role": "user",
            "content": f"That can't be carried out: {problem}. Reply with the next action and nothing else.",
        },
    ]
