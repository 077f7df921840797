"""The teacher ``expert``: asks the environment itself what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.errors import R2VError
from r2v_core.teachers.base import Advice, Situation
from r2v_core.teachers.context import TeacherContext
from r2v_core.teachers.names import TeacherEntry
from r2v_core.teachers.options import ExpertOptions


@runtime_checkable
class HasExpert(Protocol):
    """An environment with an expert of its own says what that expert plays where no plan is left."""

    waiting_action: str


class Expert:
    """Plays ``environment.expert_action()``. It sees the true state, so perturbed observations don't touch it.

    In a lost, won or unwinnable game there is no right action: it plays the environment's harmless ``waiting_action``
    (TextWorld: ``look``) until the episode ends, and marks the advice ``detail={"plan": "none"}``.
    """

    provider = "env"

    def __init__(self, model: str) -> None:
        self.model = model

    def act(self, situations: Sequence[Situation]) -> list[Advice]:
        """The expert's action for each situation.

        Raises:
            R2VError: if an environment has no expert.
        """
        return [_advise(situation) for situation in situations]


def make(
    name: str, entry: TeacherEntry, options: ExpertOptions, limits: TeacherLimitsConfig, context: TeacherContext
) -> Expert:
    """The benchmark's expert; it has no options and costs nothing."""
    return Expert(entry.model)


def _advise(situation: Situation) -> Advice:
    environment = situation.environment
    began = time.perf_counter()
    action = environment.expert_action()
    elapsed = time.perf_counter() - began
    if action is not None:
        return Advice(action, latency_s=elapsed)
    if isinstance(environment, HasExpert):
        return Advice(environment.waiting_action, latency_s=elapsed, detail={"plan": "none"})
    raise R2VError(
        f"Benchmark '{environment.task.benchmark}' has no expert of its own (task {environment.task.task_id}); "
        "use a partition with a language model as its teacher"
    )
