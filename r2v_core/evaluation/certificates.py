"""What losses on a few templates prove about new ones: tests by betting, and how many templates would be enough.

The unit is a template: its loss is the mean over its tasks and over worlds of its own, so the losses of different
templates are independent draws from [0, 1], however tasks of one template and steps in one world hang together. Nothing
is assumed about how they are distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from r2v_core.digest import rng

Risk = Literal["failure", "excess", "cvar"]
RESAMPLES = 200
MOST_TEMPLATES = 20_000
_BOLDEST = 0.75
"""Largest bet, as a share of the one that a single full loss would ruin."""


def evidence(losses: NDArray[np.float64], bound: float, delta: float) -> NDArray[np.float64]:
    """Evidence against "the expected loss is above ``bound``": the highest capital that a bettor reached, from 1.

    The bettor stakes on each loss being below the bound, with the predictable bets of Waudby-Smith & Ramdas (2024,
    "Estimating means of bounded random variables by betting", their plug-in martingale). If the expected loss is at or
    above the bound, the capital is a supermartingale whatever the distribution; so the probability that it ever reaches
    1/δ is at most δ (Ville's inequality).

    Args:
        losses: shape (rows, n), in [0, 1]; each row in the order in which it is bet on, chosen without looking at it.
        bound: in (0, 1).
        delta: the level that the bets are tuned for; any value is valid.

    Returns:
        shape (rows,), each ≥ 1.
    """
    n = losses.shape[1]
    seen = np.arange(2, n + 2)
    mean = (0.5 + np.cumsum(losses, axis=1)) / seen
    variance = (0.25 + np.cumsum((losses - mean) ** 2, axis=1)) / seen
    before = np.concatenate([np.full((len(losses), 1), 0.25), variance[:, :-1]], axis=1)
    bets = np.minimum(_BOLDEST / (1.0 - bound), np.sqrt(2.0 * np.log(1.0 / delta) / (n * before)))
    capital = np.exp(np.cumsum(np.log1p(bets * (bound - losses)), axis=1))
    highest: NDArray[np.float64] = np.maximum(1.0, capital.max(axis=1))
    return highest


def p_value(losses: ArrayLike, bound: float, delta: float) -> float:
    """P-value of "the expected loss is above ``bound``": 1 / :func:`evidence`.

    Args:
        losses: shape (n,), one for each template, in [0, 1], in an order that does not depend on them; n ≥ 1. They are
            bet on in a fixed random order, so that templates of one family do not follow each other.
        bound: 0 is never shown, 1 always.
        delta: see :func:`evidence`.
    """
    values = np.asarray(losses, dtype=float)
    if bound <= 0.0:
        return 1.0
    if bound >= 1.0:
        return 0.0
    order = rng("certificate", len(values)).permutation(len(values))
    return float(1.0 / evidence(values[order][None, :], bound, delta)[0])


@dataclass(frozen=True)
class Guarantee:
    """What calibration promises: with probability 1 − δ over its draw of templates and worlds, risk ≤ ε."""

    risk: Risk
    epsilon: float
    delta: float
    alpha: float = 1.0
    """Share of worlds in the tail, for ``cvar``."""

    def sentence(self) -> str:
        """The promise in words."""
        what = {
            "failure": "the expected failure over new tasks and worlds",
            "excess": "the expected failure in excess of the teacher's over new tasks and worlds",
            "cvar": f"CVaR at {self.alpha:g} of failure over worlds",
        }[self.risk]
        return f"{what} is at most {self.epsilon:g}, with probability {1 - self.delta:g} over the calibration's draw"

    def observed(self, losses: ArrayLike, teacher: ArrayLike) -> float:
        """The risk as seen: mean failure, or its excess; for ``cvar`` its upper bound mean/α."""
        mean = float(np.asarray(losses, dtype=float).mean())
        if self.risk == "excess":
            return mean - float(np.asarray(teacher, dtype=float).mean())
        return mean / self.alpha if self.risk == "cvar" else mean

    def scaled(self, losses: ArrayLike, teacher: ArrayLike) -> tuple[NDArray[np.float64], float]:
        """Losses in [0, 1] and the bound on their expectation that the promise follows from.

        ``excess`` pairs each template with the teacher's loss on it, in the same worlds: (difference + 1) / 2.
        ``cvar``: CVaR_α of rates in [0, 1] is at most their mean / α.
        """
        values = np.asarray(losses, dtype=float)
        if self.risk == "excess":
            return (values - np.asarray(teacher, dtype=float) + 1.0) / 2.0, (self.epsilon + 1.0) / 2.0
        return values, self.epsilon * (self.alpha if self.risk == "cvar" else 1.0)

    def p_value(self, losses: ArrayLike, teacher: ArrayLike) -> float:
        """How little the templates speak against the promise; it is kept where this is at most δ."""
        return p_value(*self.scaled(losses, teacher), self.delta)

    def templates_needed(self, losses: ArrayLike, teacher: ArrayLike) -> int | None:
        """With how many templates like these the promise could be certified in half of all draws.

        Found by drawing templates from those seen, with replacement. None: not with :data:`MOST_TEMPLATES` either,
        because the risk seen is too near the bound, or above it.
        """
        values, bound = self.scaled(losses, teacher)
        if bound >= 1.0:
            return 1
        if bound <= 0.0 or float(values.mean()) >= bound:
            return None

        def enough(n: int) -> bool:
            random = rng("templates-needed", n)
            rows = values[random.integers(0, len(values), (RESAMPLES, n))]
            return bool(np.median(evidence(rows, bound, self.delta)) >= 1.0 / self.delta)

        high = 1
        while not enough(high):
            high *= 2
            if high > MOST_TEMPLATES:
                return None
        low = high // 2
        while high - low > max(1, high // 50):
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def fewest_templates(guarantee: Guarantee) -> int | None:
    """With how many templates the promise could be certified if none of them ever failed; None: with none."""
    return guarantee.templates_needed(np.zeros(1), np.zeros(1))
