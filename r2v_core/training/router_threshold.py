"""Thresholds: the cheapest one that keeps the tail risk below its bound on validation tasks, or one for a share.

The risk is measured in one of two ways. *Played*: each threshold drives the agent in closed loop through the validation
tasks (:func:`descend`). *Logged*: the surrogate of :mod:`r2v_core.training.lagrangian` on rollouts that another rule
played (:func:`cheapest_threshold`); quick, but it can't see that an agent which is not helped stays where it is stuck.

A threshold always means: escalate where the score is *greater*. Thresholds lie halfway between two neighbouring
scores, so that rounding on another machine changes no decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import cvar_failure
from r2v_core.training.lagrangian import FailureModel, Rollouts, cvar, seed_failures
from r2v_core.training.risk_bound import corrected

ALWAYS = -1.0
"""A threshold below every score: all scores are ≥ 0."""
MAX_THRESHOLDS = 2000
"""Thresholds tried at most; with more distinct scores, evenly spread ones by rank."""


@dataclass(frozen=True)
class Cut:
    """A calibrated threshold and what it does on the validation steps."""

    threshold: float
    share: float
    """Share of steps above it."""
    cvar: float
    """Surrogate CVaR_α of failure."""
    met: bool
    """CVaR ≤ ε, in the surrogate."""


LEVELS = (1.0, 0.8, 0.7, 0.6, 0.45, 0.35, 0.28, 0.22, 0.17, 0.13, 0.1, 0.07, 0.04, 0.0)
"""Shares of logged validation steps above the thresholds that are played, from safe to cheap."""


@dataclass(frozen=True)
class Played:
    """What came of playing the validation tasks under one rule."""

    share: float
    """Share of steps that the teacher played."""
    success: tuple[float, ...]
    """Success rate of each perturbation seed."""
    n_tasks: int


@dataclass(frozen=True)
class Level:
    """One threshold, played."""

    wanted: float
    """Share of the logged validation steps above it."""
    threshold: float
    share: float
    """Share of the played steps that went to the teacher."""
    success: float
    cvar: float
    """CVaR_α of failure as played."""
    bound: float
    """Upper bound on the CVaR of a new task, see :func:`r2v_core.training.risk_bound.corrected`."""
    met: bool
    """bound ≤ ε."""


def descend(
    thresholds: Sequence[float], play: Callable[[float], Played], alpha: float, epsilon: float
) -> tuple[Level, list[Level]]:
    """Play from safe to cheap until a threshold breaks the bound; the cheapest of those before it, and all played.

    Going down one by one and stopping at the first failure keeps the choice valid although many thresholds are looked
    at: no luckier one below it can be picked (Bates et al. 2021, "Distribution-free, risk-controlling prediction
    sets"). Where even the safest breaks the bound, that one is used.

    Args:
        thresholds: of 0, 1, …, 100 % of the logged validation steps.
        play: plays the validation tasks with the rule at a share of :data:`LEVELS`.
        alpha: share of perturbation seeds in the tail.
        epsilon: bound on the corrected CVaR.
    """
    levels: list[Level] = []
    for wanted in LEVELS:
        found = play(wanted)
        risk = float(cvar_failure(found.success, alpha))
        bound = corrected(risk, found.n_tasks)
        success = float(np.mean(found.success))
        threshold = thresholds[round(wanted * 100)]
        levels.append(Level(wanted, threshold, found.share, success, risk, bound, bound <= epsilon))
        if not levels[-1].met:
            break
    met = [level for level in levels if level.met]
    return (met or levels)[-1], levels


def thresholds(scores: ArrayLike) -> NDArray[np.float64]:
    """All thresholds that decide differently, from never escalating (the largest score) to always (−1)."""
    values = np.unique(np.asarray(scores, dtype=float))[::-1]
    cuts = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2, [ALWAYS]])
    if len(cuts) > MAX_THRESHOLDS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, MAX_THRESHOLDS).round().astype(int)]
    return cuts


def threshold_for_share(scores: ArrayLike, share: float) -> float:
    """The threshold whose share of scores above it comes nearest to ``share``; the smaller share where two tie.

    Raises:
        R2VError: if there are no scores, or the share is outside [0, 1].
    """
    values = np.asarray(scores, dtype=float)
    if values.size == 0 or not 0 <= share <= 1:
        raise R2VError(f"a threshold needs scores and a share in [0, 1], got {values.size} scores and {share}")
    cuts = thresholds(values)
    reached = 1 - np.searchsorted(np.sort(values), cuts, side="right") / values.size
    return float(cuts[np.argmin(np.abs(reached - share))])


def evaluate_threshold(
    scores: NDArray[np.float64], threshold: float, rollouts: Rollouts, model: FailureModel, alpha: float, epsilon: float
) -> Cut:
    """Share and surrogate CVaR of one threshold on logged rollouts; ``scores`` of shape (n,)."""
    return _evaluate(scores, np.array([threshold]), rollouts, model, alpha, epsilon)[0]


def cheapest_threshold(
    scores: NDArray[np.float64], rollouts: Rollouts, model: FailureModel, alpha: float, epsilon: float
) -> Cut:
    """The threshold with the fewest escalations among those with CVaR_α ≤ ε; where none meets it, the least CVaR.

    Failure under a threshold is the surrogate of :mod:`r2v_core.training.lagrangian` with hard decisions.

    Args:
        scores: shape (n,), ≥ 0, one for each step of ``rollouts``.
        rollouts: logged validation steps.
        model: the surrogate's constants, measured on other rollouts.
        alpha: share of perturbation seeds in the tail.
        epsilon: bound on CVaR.
    """
    cuts = _evaluate(scores, thresholds(scores), rollouts, model, alpha, epsilon)
    return next((cut for cut in cuts if cut.met), min(cuts, key=lambda cut: (cut.cvar, cut.share)))


def _evaluate(
    scores: NDArray[np.float64],
    cuts: NDArray[np.float64],
    rollouts: Rollouts,
    model: FailureModel,
    alpha: float,
    epsilon: float,
) -> list[Cut]:
    found = []
    for block in np.array_split(cuts, max(1, len(cuts) * len(scores) // 2_000_000)):
        above = torch.from_numpy(scores[None, :] > block[:, None]).double()
        risks = cvar(seed_failures(above, rollouts, model), alpha).tolist()
        shares = above.mean(dim=-1).tolist()
        found += [Cut(float(t), s, r, r <= epsilon) for t, s, r in zip(block, shares, risks, strict=True)]
    return found
