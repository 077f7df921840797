"""What single steps say of a risk score, whole templates or single steps weighted: debiased calibration error, AUC."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from r2v_core.evaluation.calibration import N_BINS, bin_index

Floats = NDArray[np.float64]


def debiased_error(bins: Floats, drawn: Floats) -> Floats:
    """Root of the squared calibration error without what chance adds to it; negative where gaps are smaller than that.

    With R_tm = Σ (label − probability) and n_tm the number of template t's steps in bin m, and all sums over pairs of
    different templates, E = Σ_m (n_m / n) · (Σ_{s≠t} R_sm R_tm) / (Σ_{s≠t} n_sm n_tm); the value is sign(E) √|E|. With
    one step a template and one probability a bin that is the debiased estimator of Kumar et al. (2019, "Verified
    uncertainty calibration"): what residuals have in common is their product over different units. Units are templates,
    because steps of one episode err together. A bin with a single template adds 0.

    Args:
        bins: of each template and bin: count, Σ probability, Σ label; shape (templates, bins, 3).
        drawn: how often each template counts, shape (B, templates).

    Returns:
        Shape (B,); NaN where no step was drawn.
    """
    count, residual = bins[..., 0], bins[..., 2] - bins[..., 1]
    n = drawn @ count
    products = (drawn @ residual) ** 2 - drawn**2 @ residual**2
    pairs = n**2 - drawn**2 @ count**2
    gaps = np.divide(products, pairs, where=pairs > 0, out=np.zeros_like(n))
    with np.errstate(invalid="ignore"):
        squared = (n * gaps).sum(axis=-1) / n.sum(axis=-1)
    signed: Floats = np.sign(squared) * np.sqrt(np.abs(squared))
    return signed


def debiased_calibration_error(probabilities: ArrayLike, labels: ArrayLike, templates: Sequence[str]) -> float:
    """:func:`debiased_error` of single steps, all of shape (n,); ten bins of equal width."""
    p, y = np.asarray(probabilities, dtype=float), np.asarray(labels, dtype=float)
    names, owner = np.unique(list(templates), return_inverse=True)
    bins = np.zeros((len(names), N_BINS, 3))
    np.add.at(bins, (owner, bin_index(p)), np.stack([np.ones_like(p), p, y], axis=-1))
    return float(debiased_error(bins, np.ones((1, len(names))))[0])


CHUNK = 4_000_000
"""Weights of steps held at once."""


def weighted_auc(score: Floats, label: Floats, rows: int, weights: Callable[[slice], Floats]) -> Floats:
    """Probability that a failure's score is above another step's, ties half (Mann & Whitney 1947), steps weighted.

    Args:
        score: shape (n,).
        label: shape (n,), in [0, 1]; a label t is a failure of weight t and none of weight 1 − t.
        rows: B.
        weights: of some rows: shape (rows, n).

    Returns:
        Shape (B,); NaN where labels of positive weight are all alike.
    """
    order = np.argsort(score, kind="stable")
    label, starts = label[order], np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    size = max(1, CHUNK // max(1, order.size))
    found = []
    for start in range(0, rows, size):
        drawn = weights(slice(start, start + size))[:, order]
        failed = np.add.reduceat(drawn * label, starts, axis=1)
        other = np.add.reduceat(drawn * (1 - label), starts, axis=1)
        wins = (failed * (np.cumsum(other, axis=1) - other / 2)).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(wins / (failed.sum(axis=1) * other.sum(axis=1)))
    values: Floats = np.concatenate(found)
    return values
