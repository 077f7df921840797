"""Asking the teacher about several episodes."""

from __future__ import annotations

from collections.abc import Sequence

from r2v_core.agent.live import Live, each
from r2v_core.teachers.base import Advice, Situation, Teacher


def ask_teacher(teacher: Teacher, live: Sequence[Live], instructions: str) -> list[Advice]:
    """The teacher's action for each episode, in order: a model's for all at once, an environment's own from each."""

    def situation(one: Live) -> Situation:
        return Situation(one.environment, instructions, one.job.task.goal, one.history, one.seen)

    if teacher.provider == "env":
        return [answer for (answer,) in each(live, lambda one: teacher.act([situation(one)]))]
    return teacher.act([situation(one) for one in live])
