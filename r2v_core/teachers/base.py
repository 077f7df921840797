"""What a teacher is: someone who can be asked for the next action from any state, mid-episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from r2v_core.benchmarks.base import Environment
from r2v_core.trajectory import Observation, Step


@dataclass(frozen=True)
class Situation:
    """All that a teacher may look at: the live environment (for experts) and what the agent saw (for models)."""

    environment: Environment
    instructions: str
    goal: str
    history: Sequence[Step]
    observation: Observation


@dataclass(frozen=True)
class Advice:
    """A teacher's answer to one situation."""

    action: str
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0
    detail: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    """Why there is no action: the request was refused, and would be again."""


class Teacher(Protocol):
    """Provider and model name identify the partition; ``act`` answers a batch of situations in order."""

    provider: str
    model: str

    def act(self, situations: Sequence[Situation]) -> list[Advice]:
        """One action for each situation.

        Raises:
            R2VError: if the teacher can't be asked (no expert here, server unreachable).
        """
        ...
