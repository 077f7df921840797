"""A language model that reads answers to WebArena's open questions; which one, and how it is asked, others decide."""

from __future__ import annotations

import re

from r2v_core.benchmarks.base import AskModel

_SAME = (
    "You compare an answer with a reference. Decide whether the answer says the same as the reference in reply to the "
    "question, in whatever words; 'N/A' stands for: this can't be done. Reply with one word: SAME if it does, PARTLY "
    "if something is missing or wrong in it, DIFFERENT if it does not."
)
_REASON = (
    "You are shown a task that can't be done, the reason for that, and what somebody who tried said about it. Decide "
    "whether that names or implies the reason. Reply with one word: SAME if it does, DIFFERENT if it does not."
)
_WORD = re.compile(r"\b(same|partly|different)\b", re.IGNORECASE)


class AnswerJudge:
    """Asks once, once more where the reply can't be read, and then decides against the answer."""

    def __init__(self, ask: AskModel) -> None:
        self.ask = ask

    def same(self, question: str, reference: str, answer: str) -> bool:
        """Whether the answer to a question means what the reference says."""
        return self._asked(_SAME, f"Question: {question}\nReference: {reference}\nAnswer: {answer}")

    def same_reason(self, question: str, reference: str, answer: str) -> bool:
        """Whether an answer gives the reason for which a task can't be done."""
        return self._asked(_REASON, f"Task: {question}\nReason: {reference}\nWhat was said: {answer}")

    def _asked(self, instructions: str, text: str) -> bool:
        for note in ("", "\n\nReply with exactly one of the words."):
            messages = [
                {"role": "system", "content": instructions},
                {"role": "user", "content": text + note},
            ]
            words = {word.lower() for word in _WORD.findall(self.ask(messages))}
            if len(words) == 1:
                return words == {"same"}
        return False
