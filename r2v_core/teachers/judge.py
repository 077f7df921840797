"""A language model as verifier: it reads what the small model read and scores each of its candidate actions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress

from r2v_core.teachers.chat import Ask
from r2v_core.teachers.conversation import Message

UNREADABLE = 0.5
"""Score of every candidate of a state whose judgement could not be read, even when asked for twice."""
Pair = tuple[float, float]

_INSTRUCTIONS = (
    "You judge the next action of an agent. You are shown what the agent was shown, and numbered candidate actions. "
    "Give each two probabilities from 0 to 1: that the action brings the goal closer, and that the agent reaches the "
    "goal after it. Reply with one JSON list and nothing else, one pair a candidate in their order, for example for "
    "two candidates: [[0.9, 0.8], [0.1, 0.3]]"
)
_MARKUP = re.compile(r"<\|[^|>]*\|>")
_DECODER = json.JSONDecoder()


class Judge:
    """Scores candidates with the same face as the trained verifier, all states of a batch at once.

    ``failures`` counts states whose judgement could not be read; their candidates count as :data:`UNREADABLE`.
    """

    def __init__(self, ask: Ask, log: Callable[[str], None]) -> None:
        self.ask = ask
        self.log = log
        self.judged = 0
        self.failures = 0

    def score(self, prompts: list[str], actions: list[list[str]]) -> list[list[Pair]]:
        """(step, outcome) in [0, 1] for each prompt's actions, in order.

        Raises:
            R2VError: if the model can't be asked; BudgetSpent if the judge's budget ends.
        """
        asked = [i for i, some in enumerate(actions) if some]
        talks = {i: question(prompts[i], actions[i]) for i in asked}
        found = self._scores(talks, actions)
        wrong = [i for i in asked if found[i] is None]
        if wrong:
            found |= self._scores({i: _again(talks[i], len(actions[i])) for i in wrong}, actions)
        failed = sum(found[i] is None for i in asked)
        self.judged += len(asked)
        self.failures += failed
        if failed:
            self.log(f"warning: {failed} of {len(asked)} judgements could not be read; these states count as undecided")
        return [(found.get(i) or [(UNREADABLE, UNREADABLE)] * len(some)) for i, some in enumerate(actions)]

    def _scores(self, talks: dict[int, list[Message]], actions: list[list[str]]) -> dict[int, list[Pair] | None]:
        replies = self.ask(list(talks.values()))
        return {i: read_scores(reply.text, len(actions[i])) for i, reply in zip(talks, replies, strict=True)}


def question(prompt: str, actions: list[str]) -> list[Message]:
    """The chat that asks for scores; the small model's chat markup is left out of what it was shown."""
    shown = "\n".join(line for line in _MARKUP.sub("\n", prompt).splitlines() if line.strip())
    listed = "\n".join(f"{n}. {json.dumps(action, ensure_ascii=False)}" for n, action in enumerate(actions, start=1))
    text = f"What the agent was shown:\n{shown}\n\nCandidate actions:\n{listed}"
    return [{"role": "system", "content": _INSTRUCTIONS}, {"role": "user", "content": text}]


def _again(messages: list[Message], count: int) -> list[Message]:
    note = f"\n\nReply with one JSON list of exactly {count} pairs of numbers from 0 to 1 and nothing else."
    return [messages[0], {"role": "user", "content": messages[1]["content"] + note}]


def read_scores(reply: str, count: int) -> list[Pair] | None:
    """The last JSON list of ``count`` pairs of numbers in [0, 1] in a reply; None where there is none."""
    found = None
    for match in re.finditer(r"\[", reply):
        with suppress(ValueError, RecursionError):
            value, _ = _DECODER.raw_decode(reply, match.start())
            if len(value) == count and all(map(_is_pair, value)):
                found = [(float(step), float(outcome)) for step, outcome in value]
    return found


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(map(_is_probability, item))


def _is_probability(number: object) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number <= 1
