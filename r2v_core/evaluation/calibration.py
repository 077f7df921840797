"""Is a probability what it says? Calibration error, Brier score, level and slope; and does it rank (AUC)?

Labels lie in [0, 1]. One in between is *soft*: a label t counts as a 1 of weight t and a 0 of weight 1 − t at the same
probability, in every number here. For 0 and 1 these are the usual ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
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
    if not (np.all((p >= 0) & (p <= 1)) and np.all((y >= 0) & (y <= 1))):
        raise R2VError("calibration needs probabilities and labels in [0, 1]; leave unlabelled steps out")
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
        labels: shape (n,), in [0, 1].
        n_bins: number of bins.

    Raises:
        R2VError: for empty, mismatched or out-of-range input.
    """
    p, y = _checked(probabilities, labels)
    index = bin_index(p, n_bins)
    gaps = np.bincount(index, weights=y - p, minlength=n_bins)
    return float(np.abs(gaps).sum() / p.size)


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of y(1 − p)² + (1 − y)p², which is (p − y)² for labels 0 and 1 (Brier 1950).

    Raises:
        R2VError: for empty, mismatched or out-of-range input.
    """
    p, y = _checked(probabilities, labels)
    return float(np.mean(y * (1 - p) ** 2 + (1 - y) * p**2))


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a 1 drawn from all has a higher score than a 0, ties half; NaN where all labels are 0, or all 1.

    Args:
        scores: shape (n,), of any scale.
        labels: shape (n,), in [0, 1].
    """
    from sklearn.metrics import roc_auc_score

    s, y = np.asarray(scores, dtype=float).ravel(), np.asarray(labels, dtype=float).ravel()
    if not two_classes(y):
        return float("nan")
    truth, weight = np.repeat([1, 0], y.size), np.concatenate([y, 1 - y])
    some = weight > 0
    return float(roc_auc_score(truth[some], np.concatenate([s, s])[some], sample_weight=weight[some]))


def two_classes(labels: ArrayLike) -> bool:
    """Whether labels in [0, 1] hold some weight of either class."""
    y = np.asarray(labels, dtype=float)
    return y.size > 0 and bool(np.any(y > 0) and np.any(y < 1))


def reliability_table(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = N_BINS) -> pd.DataFrame:
    """What a reliability diagram draws: one row a bin, also the empty ones.

    Returns:
        Columns ``low, high, n, probability`` (mean, NaN where empty) and ``observed`` (mean label).

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


def log_loss(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean binary cross-entropy of sigmoid(logit), in nats."""
    z = np.asarray(logits, dtype=float)
    y = np.asarray(labels, dtype=float)
    return float(-np.mean(y * log_expit(z) + (1 - y) * log_expit(-z)))


SLOPES = (0.01, 20.0)
"""Smallest and largest slope of a calibration: data that would drive it to 0, below or to infinity end here."""


def fit_level_and_slope(logits: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """The (slope, level) that minimise the log loss of sigmoid(slope · logit + level) (Platt 1999).

    The labels are smoothed as Platt's are, (n₁ + 1) / (n₁ + 2) for a 1 and 1 / (n₀ + 2) for a 0, so that separable data
    have a minimum; n₁ is the sum of the labels, and a soft one lies between both by its share. The slope is positive:
    calibration never turns an order round.

    Args:
        logits: shape (n,), a model's raw outputs on data that it was not trained on.
        labels: shape (n,), in [0, 1].

    Raises:
        R2VError: for empty or mismatched input, or labels outside [0, 1].
    """
    from scipy.optimize import minimize  # slow to load, and tables fit nothing

    z = np.asarray(logits, dtype=float).ravel()
    _, y = _checked(expit(z), labels)
    ones = float(y.sum())
    target = y * (ones + 1) / (ones + 2) + (1 - y) / (y.size - ones + 2)
    best = minimize(
        lambda theta: log_loss(theta[0] * z + theta[1], target),
        np.array([1.0, 0.0]),
        method="L-BFGS-B",
        bounds=[SLOPES, (-30.0, 30.0)],
    )
    return float(best.x[0]), float(best.x[1])
