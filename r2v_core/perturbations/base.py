"""What a perturbation family is: seeded operators on what is seen and on whether an action is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from r2v_core.trajectory import Observation, Perturbation


@dataclass(frozen=True)
class StepContext:
    """Where the noise strikes: everything an operator's randomness and content may depend on.

    Operators draw only from ``r2v_core.digest.rng(z, task_id, step, operator)``.
    """

    z: int
    task_id: str
    step: int
    goal: str
    admissible: Sequence[str] = ()
    previous: Observation | None = None
    """The clean observation one step earlier (for operators that show stale content)."""
    current: Observation | None = None
    """The clean observation at this step; needed to intercept, because a failed call leaves the state as it is."""
    severity: float = 1.0
    """What the world multiplies the probabilities of the family at work with."""


@dataclass
class View:
    """An observation on its way to the agent, changed in place by operators, with the record of what they did."""

    observation: Observation
    records: list[Perturbation] = field(default_factory=list)


class Family(Protocol):
    """One family of operators, built from its section of the config."""

    name: str
    operators: tuple[str, ...]

    def observe(self, context: StepContext, view: View) -> None:
        """Apply the family's observation operators to ``view``."""
        ...

    def intercept(self, context: StepContext, action: str) -> tuple[Observation, Perturbation] | None:
        """What the agent sees instead of a result if the action is *not* carried out at this moment, else None."""
        ...
