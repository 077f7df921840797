"""Episodes under way, as the loop and its drivers see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from r2v_core.agent.guarded import GuardedEnvironment
from r2v_core.agent.workers import Workers
from r2v_core.benchmarks.base import Outcome, Task
from r2v_core.trajectory import Actor, Decision, Observation, Perturbation, Step

T = TypeVar("T")


@dataclass(frozen=True)
class Branch:
    """Where an episode leaves an earlier one on the same task in the same world."""

    steps: tuple[Step, ...]
    """Of the earlier one, up to the state where it is left."""
    action: str
    """What is done there instead of the last of these steps' action."""
    stream: str
    """Names the random numbers that the episode draws from there on."""


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    episode_id: str
    task: Task
    z: int | None = None
    replicate: int = 0
    method: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    branch: Branch | None = None
    """None: the episode begins at the task's beginning."""


@dataclass
class Live:
    """One episode under way, as its driver sees it just before a decision."""

    job: Job
    environment: GuardedEnvironment
    outcome: Outcome
    seen: Observation
    records: list[Perturbation] = field(default_factory=list)
    history: list[Step] = field(default_factory=list)
    previous: Observation | None = None
    workers: Workers = field(default_factory=Workers)
    """Where environments work side by side; see :func:`each`."""

    @property
    def step(self) -> int:
        """Index of the step about to be decided."""
        return len(self.history)

    @property
    def teacher_calls(self) -> int:
        """Steps that the teacher has played so far."""
        return sum(step.actor == "teacher" for step in self.history)

    @property
    def cost(self) -> float:
        """Cost units spent so far."""
        return sum(step.cost for step in self.history)


@dataclass
class Choice:
    """What a driver decided for one live episode."""

    action: str
    actor: Actor
    decision: Decision | None = None
    expert_action: str | None = None
    alternatives: dict[str, bool] = field(default_factory=dict)
    malformed: str | None = None
    error: str | None = None
    """Why there is no action (a refused request): the episode ends here."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_teacher_in: int = 0
    tokens_teacher_out: int = 0
    tokens_verifier: int = 0
    cost: float = 0.0
    cost_usd: float = 0.0
    latency_s: float = 0.0


class Driver(Protocol):
    """Decides the next action of every live episode, in order."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """One choice for each live episode."""
        ...


def each(live: Sequence[Live], function: Callable[[Live], T]) -> list[T]:
    """What a function that asks an environment says of each episode, in order; asked side by side where they may be.

    Raises:
        EpisodeFailed: the first episode's whose environment failed, once all have answered.
    """
    if not live:
        return []
    workers = live[0].workers
    pending = [workers.start(one.environment, partial(function, one)) for one in live]
    return workers.results(pending)
