"""What a routing rule is: one record, from which schema, tables, figures, report and calibration are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from r2v_core.config.schema import AgentConfig
from r2v_core.errors import R2VError

if TYPE_CHECKING:
    from r2v_core.models.router import Router


@dataclass(frozen=True)
class RoutingContext:
    """What a rule may look at."""

    features: dict[str, float]
    earlier: Sequence[Mapping[str, float]]
    """Features of the episode's earlier steps."""
    task_id: str
    z: int | None
    replicate: int
    step: int
    would_progress: Callable[[], bool | None]
    """Ground truth about the SLM's chosen action. For the oracle alone."""


@dataclass(frozen=True)
class RoutingDecision:
    """A rule's answer: ``probability`` is its risk score where it has one, compared with ``threshold``."""

    escalate: bool
    probability: float | None = None
    threshold: float | None = None


Rule = Callable[[RoutingContext], RoutingDecision]
Score = Callable[[Mapping[str, float]], float]
Scope = Literal["step", "so_far", "start"]
"""Which steps' scores decide at a step: its own; the highest so far, so that the teacher, once asked, plays to the end;
the first, so that one player plays the whole episode."""


def in_scope(scores: NDArray[np.float64], scope: Scope) -> NDArray[np.float64]:
    """The scores that decide at each step of one episode, from each step's own; both of shape (steps,)."""
    if scope == "step":
        return scores
    return np.maximum.accumulate(scores) if scope == "so_far" else np.full_like(scores, scores[0])


@dataclass(frozen=True)
class RuleSettings:
    """What a rule is made from."""

    name: str
    agent: AgentConfig
    seed: int
    router: Router | None
    share: float | None = None
    """Wanted share of teacher calls; None: the rule's own calibrated threshold or rate."""

    @property
    def trained(self) -> Router:
        """The trained router, which also holds what the other rules were calibrated to.

        Raises:
            R2VError: if there is none.
        """
        if self.router is None:
            raise R2VError(f"method '{self.name}' needs a trained router; materialise 'router' first")
        return self.router

    def calibrated(self, quantity: Literal["threshold", "rate"]) -> float:
        """What calibration found for this rule.

        Raises:
            R2VError: if there is no router, or it was calibrated before this rule existed.
        """
        found = self.trained.rules.get(self.name)
        if found is None:
            raise R2VError(f"the router was calibrated without '{self.name}'; materialise 'router' again")
        return found[quantity]


@dataclass(frozen=True)
class RoutingRule:
    """One rule: everything that the rest of the project knows of it."""

    name: str
    title: str
    """What it does, after the rule's name: 'asks the teacher where …'."""
    make: Callable[[RuleSettings], Rule]
    colour: str
    """Of its points and lines; Okabe and Ito (2008) for the built-in ones."""
    marker: str
    """Matplotlib marker; it alone tells rules apart in greyscale."""
    line: str = "-"
    """Matplotlib line style of its sweep, where it has one."""
    threshold: Literal["none", "score", "router", "rate"] = "none"
    """What calibration sets: nothing, a threshold on :attr:`score`, one on the router's probability, or a rate."""
    score: Score | None = None
    """For ``threshold='score'``: the number that is compared with the threshold, ≥ 0, from a step's features."""
    scorer: str = ""
    """For ``threshold='router'``: which of the router's scorers; empty: the one that cross-fitting chose."""
    scope: Scope = "step"
    """Which steps' scores decide."""
    score_title: str = ""
    """What the score is, for axes and readers."""
    decision: Callable[[AgentConfig], str] | None = None
    """How it decides, for readers of a step, where no single score says it."""
    probabilistic: bool = False
    """Whether the score claims to be the probability that the small model's action fails, so that it has an ECE."""
    upper_bound: bool = False
    """Whether it looks at the truth, so that it is no competitor."""
    proposes: bool = True
    """Whether the small model is asked at every step."""

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself.

        Raises:
            ValueError: if a score is missing where the threshold is on it, or there where nothing is compared with it.
        """
        if (self.threshold == "score") != (self.score is not None):
            raise ValueError(
                f"rule '{self.name}': threshold='score' needs a score, and a score needs threshold='score'"
            )
        if "@" in self.name:
            raise ValueError(f"rule '{self.name}': leave out '@', which separates a rule from a share of teacher calls")

    @property
    def swept(self) -> bool:
        """Whether its threshold (or rate) can be set for a wanted share of teacher calls."""
        return self.threshold != "none"
