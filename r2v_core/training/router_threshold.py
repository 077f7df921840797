"""Thresholds: the cheapest one whose risk is certified on validation templates, or one for a share of calls.

The risk is measured in one of two ways. *Played*: each threshold drives the agent in closed loop through the validation
tasks (:func:`descend`), and what that proves is stated. *Logged*: the surrogate of :mod:`r2v_core.training.lagrangian`
on rollouts that another rule played (:func:`cheapest_threshold`); quick, but it can't see that an agent which is not
helped stays where it is stuck, and it proves nothing.

A threshold always means: escalate where the score is *greater*. Thresholds lie halfway between two neighbouring
scores, so that rounding on another machine changes no decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from r2v_core.errors import R2VError
from r2v_core.evaluation.certificates import Guarantee
from r2v_core.training.guarantee import LEVELS
from r2v_core.training.lagrangian import FailureModel, Rollouts, cvar, seed_failures

ALWAYS = -1.0
"""A threshold below every score: all scores are ≥ 0."""
MAX_THRESHOLDS = 2000
"""Thresholds tried at most; with more distinct scores, evenly spread ones by rank."""


@dataclass(frozen=True)
class ThresholdResult:
    """A calibrated threshold and what it does on the validation steps."""

    threshold: float
    share: float
    """Share of steps above it."""
    risk: float
    """The risk as played, or the surrogate's CVaR_α of failure on logged steps."""
    met: bool
    """Played: certified. Logged: the surrogate's CVaR is within ε."""


@dataclass(frozen=True)
class Played:
    """What came of playing the validation tasks under one rule."""

    share: float
    """Share of steps that the teacher played."""
    losses: tuple[float, ...]
    """Each template's share of failed episodes, over its tasks and worlds; always in the same order."""


@dataclass(frozen=True)
class Level:
    """One threshold, played."""

    wanted: float
    """Share of the logged steps of the router split above it."""
    threshold: float
    share: float
    """Share of the played steps that went to the teacher."""
    success: float
    risk: float
    """The guarantee's risk as played: mean failure over templates, its excess over the teacher's, or mean/α."""
    p_value: float
    """Of "the risk on new templates is above ε"."""
    certified: bool
    """Its p-value, and those of all safer levels, are at most δ."""
    cvar_certified: bool
    """The same for CVaR_α over worlds ≤ ε."""


@dataclass(frozen=True)
class Choice:
    """The chosen level, all that were played, and what is needed to certify it."""

    level: Level
    levels: list[Level]
    n: int
    """Templates."""
    templates_needed: int | None
    """With so many templates like these, half of all draws would show this level's risk to be within ε; None: no number
    would. A rough, lower figure: the level was picked by what was seen, and safer ones have to pass before it."""


def descend(thresholds: Sequence[float], play: Callable[[float], Played], guarantee: Guarantee, alpha: float) -> Choice:
    """Play from safe to cheap; the cheapest certified threshold, or the cheapest within ε as seen where none is.

    Fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test"): the thresholds come from other tasks, their
    order is fixed, each is tested at δ, and the first that fails ends it. So the probability that any threshold is
    certified whose risk is above ε is at most δ, without a correction for how many were looked at, and without risks
    that have to rise from one to the next. The first level asks the teacher at every step; its excess over the
    teacher is 0 by definition and needs no test, and counts as certified only if a cheaper level is.

    Args:
        thresholds: of 0, 1, …, 100 % of the router split's logged steps.
        play: plays the validation tasks with the rule at a share of :data:`LEVELS`.
        guarantee: what is to be certified.
        alpha: tail for the second certificate, of CVaR.
    """
    tail = replace(guarantee, risk="cvar", alpha=alpha)
    levels: list[Level] = []
    played: list[Played] = []
    certifying = in_tail = True
    untested = 1 if guarantee.risk == "excess" else 0
    for wanted in LEVELS:
        found = play(wanted)
        played.append(found)
        teacher = played[0].losses
        risk = guarantee.observed(found.losses, teacher)
        p = 0.0 if len(levels) < untested else guarantee.p_value(found.losses, teacher)
        certifying = certifying and p <= guarantee.delta
        in_tail = in_tail and tail.p_value(found.losses, teacher) <= guarantee.delta
        success, threshold = 1.0 - float(np.mean(found.losses)), thresholds[round(wanted * 100)]
        levels.append(Level(wanted, threshold, found.share, success, risk, p, certifying, in_tail))
        tested = levels[untested:]
        if tested and tested[0].certified and not certifying:
            break
        if tested and not tested[0].certified and risk > guarantee.epsilon:
            break
    if untested and not any(level.certified for level in levels[1:]):
        levels[0] = replace(levels[0], certified=False)
    good = [level for level in levels if level.certified] or [
        level for level in levels if level.risk <= guarantee.epsilon
    ]
    chosen = (good or levels[:1])[-1]
    losses = played[levels.index(chosen)].losses
    needed = guarantee.templates_needed(losses, played[0].losses)
    return Choice(chosen, levels, len(losses), needed)


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
) -> ThresholdResult:
    """Share and surrogate CVaR of one threshold on logged rollouts; ``scores`` of shape (n,)."""
    return _evaluate(scores, np.array([threshold]), rollouts, model, alpha, epsilon)[0]


def cheapest_threshold(
    scores: NDArray[np.float64], rollouts: Rollouts, model: FailureModel, alpha: float, epsilon: float
) -> ThresholdResult:
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
    return next((cut for cut in cuts if cut.met), min(cuts, key=lambda cut: (cut.risk, cut.share)))


def frontier_area(scores: NDArray[np.float64], rollouts: Rollouts, model: FailureModel) -> float:
    """Area under the surrogate's success against the share of escalations, from never to always, in [0, 1].

    On logged steps cost rises linearly with that share, so it is the area over cost between the two ends as well.
    """
    cuts = _evaluate(scores, thresholds(scores), rollouts, model, alpha=1.0, epsilon=0.0)
    return float(np.trapezoid([1.0 - cut.risk for cut in cuts], [cut.share for cut in cuts]))


def _evaluate(
    scores: NDArray[np.float64],
    cuts: NDArray[np.float64],
    rollouts: Rollouts,
    model: FailureModel,
    alpha: float,
    epsilon: float,
) -> list[ThresholdResult]:
    found = []
    for block in np.array_split(cuts, max(1, len(cuts) * len(scores) // 2_000_000)):
        above = torch.from_numpy(scores[None, :] > block[:, None]).double()
        risks = cvar(seed_failures(above, rollouts, model), alpha).tolist()
        shares = above.mean(dim=-1).tolist()
        found += [ThresholdResult(float(t), s, r, r <= epsilon) for t, s, r in zip(block, shares, risks, strict=True)]
    return found
