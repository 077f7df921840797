"""Is a probability what it says? Calibration error, Brier score, temperature scaling, thresholds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from r2v_core.errors import R2VError

Floats = NDArray[np.float64]

N_BINS = 10
"""Equal-width bins of [0, 1], as in Guo et al. 2017."""


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    p = np.asarray(probabilities, dtype=float).ravel()
    y = np.asarray(labels, dtype=float).ravel()
    if p.shape != y.shape or p.size == 0:
        raise R2VError(f"calibration needs one label for each probability, got {p.size} and {y.size}")
    if not (np.all((p >= 0) & (p <= 1)) and np.all((y == 0) | (y == 1))):
        raise R2VError("calibration needs probabilities in [0, 1] and labels 0 or 1; leave unlabelled steps out")
    return p, y


def bin_index(probabilities: ArrayLike, n_bins: int = N_BINS) -> NDArray[np.intp]:
    """Bin of each probability: bin m holds ((m)/M, (m+1)/M], and 0 belongs to the first (Guo et al. 2017)."""
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    return np.clip(np.searchsorted(edges, np.asarray(probabilities, dtype=float), side="left") - 1, 0, n_bins - 1)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = N_BINS) -> float:
    """ECE = Σ_m |B_m|/n · |mean label − mean probability| over equal-width bins (Guo et al. 2017).

    The probability is that of the positive class (here: the small model's action fails), not of the predicted one.

    Args:
        probabilities: shape (n,), in [0, 1].
        labels: shape (n,), 0 or 1.
        n_bins: number of bins.

    Raises:
        R2VError: for empty, mismatched or out-of-range input.
    """
    p, y = _checked(probabilities, labels)
    index = bin_index(p, n_bins)
    gaps = np.bincount(index, weights=y - p, minlength=n_bins)
    return float(np.abs(gaps).sum() / p.size)


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of (p − y)² (Brier 1950).

    Raises:
        R2VError: for empty, mismatched or out-of-range input.
    """
    p, y = _checked(probabilities, labels)
    return float(np.mean((p - y) ** 2))


def reliability_table(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = N_BINS) -> pd.DataFrame:
    """What a reliability diagram draws: one row a bin, also the empty ones.

    Returns:
        Columns ``low, high, n, probability`` (mean, NaN where empty) and ``observed`` (share of positive labels).

    Raises:
        R2VError: for empty, mismatched or out-of-range input.
    """
    p, y = _checked(probabilities, labels)
    index = bin_index(p, n_bins)
    n = np.bincount(index, minlength=n_bins)
    filled = np.where(n > 0, n, np.nan)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": n,
            "probability": np.bincount(index, weights=p, minlength=n_bins) / filled,
            "observed": np.bincount(index, weights=y, minlength=n_bins) / filled,
        }
    )


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """Mean binary cross-entropy of sigmoid(logit / T), in nats."""
    z = np.asarray(logits, dtype=float) / temperature
    y = np.asarray(labels, dtype=float)
    return float(-np.mean(y * log_expit(z) + (1 - y) * log_expit(-z)))


def fit_temperature(logits: ArrayLike, labels: ArrayLike, bounds: tuple[float, float] = (0.05, 20.0)) -> float:
    """The temperature T > 0 that minimises the likelihood loss of sigmoid(logit / T) (Guo et al. 2017).

    The loss is convex in 1/T, so the bounded search finds the one minimum; data that would drive T to 0 or to infinity
    (separable, or of no information) end at a bound.

    Args:
        logits: shape (n,), the model's raw outputs on data that it was not trained on.
        labels: shape (n,), 0 or 1.
        bounds: smallest and largest T.

    Raises:
        R2VError: for empty or mismatched input, or labels other than 0 and 1.
    """
    z = np.asarray(logits, dtype=float).ravel()
    _, y = _checked(expit(z), labels)
    best = minimize_scalar(
        lambda inverse: negative_log_likelihood(z * inverse, y),
        bounds=(1 / bounds[1], 1 / bounds[0]),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(1 / best.x)


def apply_temperature(logits: ArrayLike, temperature: float) -> Floats:
    """sigmoid(logit / T), shape of ``logits``."""
    scaled: Floats = expit(np.asarray(logits, dtype=float) / temperature)
    return scaled


def threshold_for_share(probabilities: ArrayLike, share: float) -> float:
    """The threshold t for which the share of steps with probability > t comes nearest to the wanted one.

    Ties in the probabilities can't be told apart by any threshold, so the nearest reachable share is taken, the
    smaller one where two are as near. A share of 1 gives a threshold just below the smallest probability.

    Args:
        probabilities: shape (n,), of the steps the threshold is calibrated on.
        share: wanted share of teacher calls, in [0, 1].

    Raises:
        R2VError: if there are no probabilities, or the share is outside [0, 1].
    """
    p = np.asarray(probabilities, dtype=float).ravel()
    if p.size == 0 or not 0 <= share <= 1:
        raise R2VError(f"a threshold needs probabilities and a share in [0, 1], got {p.size} of them and {share}")
    values, counts = np.unique(p, return_counts=True)
    thresholds = np.append(values[::-1], np.nextafter(values[0], -np.inf))
    reached = np.append(0, np.cumsum(counts[::-1])) / p.size
    return float(thresholds[np.argmin(np.abs(reached - share))])
