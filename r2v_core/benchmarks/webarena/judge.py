"""A language model that reads answers to WebArena's open questions, through the teachers' clients and cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from r2v_core.errors import R2VError
from r2v_core.teachers.chat import Ask
from r2v_core.teachers.conversation import Message

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

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    def same(self, question: str, reference: str, answer: str) -> bool:
        """Whether the answer to a question means what the reference says."""
        return self._asked(_SAME, f"Question: {question}\nReference: {reference}\nAnswer: {answer}")

    def same_reason(self, question: str, reference: str, answer: str) -> bool:
        """Whether an answer gives the reason for which a task can't be done."""
        return self._asked(_REASON, f"Task: {question}\nReason: {reference}\nWhat was said: {answer}")

    def _asked(self, instructions: str, text: str) -> bool:
        for note in ("", "\n\nReply with exactly one of the words."):
            talk: list[Message] = [
                {"role": "system", "content": instructions},
                {"role": "user", "content": text + note},
            ]
            words = {word.lower() for word in _WORD.findall(self.ask([talk])[0].text)}
            if len(words) == 1:
                return words == {"same"}
        return False


def open_judge(name: str, cache: Path) -> AnswerJudge:
    """The judge of a teacher's name; what it was asked counts in ``<cache>/webarena/judge_usage….json``.

    Raises:
        R2VError: if it can't be asked from here, or is no language model.
    """
    from r2v_core.config.schema import TeacherLimitsConfig
    from r2v_core.runs.directories import project_root
    from r2v_core.teachers import make_teacher
    from r2v_core.teachers.chat import ChatTeacher
    from r2v_core.teachers.place import Place

    place = Place(project_root(), cache, cache / "webarena", rank=os.getpid(), role="judge")
    try:
        model = make_teacher(name, {}, TeacherLimitsConfig(), place)
    except R2VError as error:
        raise R2VError(f"benchmark.options.judge: {error}") from None
    if not isinstance(model, ChatTeacher):
        raise R2VError(f"benchmark.options.judge: '{name}' is no language model; choose another teacher's name")
    return AnswerJudge(model.ask)
