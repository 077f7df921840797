"""Uncertainty and comparison: intervals from resamples, sign-flip tests, exact McNemar, Holm.

An interval is made of what :mod:`r2v_core.evaluation.resampling` drew. Its width is Student's, from the variances that
templates, worlds and training seeds contribute (:func:`half_width`); its shape is that of the resampled values,
stretched to that width. Means get percentile intervals. A minimum, a tail mean or a calibration error is pushed one
way by noise, and a resample is pushed once more; those get the basic interval (Davison & Hinkley 1997, §5.2), which
reflects that push back, and take the worlds as they are. Tests flip whole templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtri, stdtrit

from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import Metric, Tally
from r2v_core.evaluation.resampling import Factor, Resamples, resampled

Floats = NDArray[np.float64]

NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is. NaN stands for 'can't be told'."""

    value: float
    low: float = NAN
    high: float = NAN
    spread: float = NAN
    """Standard deviation between partition seeds (n − 1), NaN for a single one."""


def half_width(draws: Floats, factors: Sequence[Factor], confidence: float) -> float:
    """Half the width of an interval: t · √(Σ V_f), with Satterthwaite's (1946) degrees of freedom.

    V_f is the variance of the values resampled over one factor alone, times n/(n − strata), which a bootstrap of n
    units leaves out. What belongs to single episodes is in both templates' and worlds' share, so the sum errs on the
    safe side, but by less than the product of both draws, which counts it three times (Owen 2007). What training seeds
    have of their own is in the seeds' share, which is at least as large. The interval is never narrower than one from a
    single factor, t · √V_f with its degrees of freedom: Satterthwaite's are too many where few seeds agree by chance.

    Args:
        draws: values resampled over each factor alone, shape (factors, B).
        factors: templates, worlds, training seeds; one without a degree of freedom contributes nothing.
        confidence: coverage aimed at.

    Returns:
        NaN where no factor has a degree of freedom.
    """
    known = [i for i, factor in enumerate(factors) if factor.freedom > 0]
    if not known:
        return NAN
    alone = {i: float(np.nanvar(draws[i])) * factors[i].n / factors[i].freedom for i in known}
    seeds = len(factors) - 1
    nested = [i for i in known if factors[i].nested and seeds in known]
    parts = {i: variance for i, variance in alone.items() if i not in nested}
    if nested:
        parts[seeds] = max(alone[i] for i in (seeds, *nested))
    total = sum(parts.values())
    if total <= 0.0:
        return 0.0
    freedom = total**2 / sum(variance**2 / factors[i].freedom for i, variance in parts.items())
    reach = [(freedom, total), *((factors[i].freedom, variance) for i, variance in alone.items())]
    return max(float(stdtrit(n, (1 + confidence) / 2) * np.sqrt(variance)) for n, variance in reach)


def interval(
    value: float,
    draws: Floats,
    resamples: Resamples,
    *,
    biased: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """An interval around a value, from what it becomes on the resamples.

    The central resampled values, their distance from the mean stretched so that normal ones would reach
    :func:`half_width`; a generalisation of Hesterberg's (2015) expanded percentile interval to several factors.

    Args:
        value: on the data.
        draws: on the resamples, shape (4, B), rows as :func:`~r2v_core.evaluation.resampling.resampled` gives them; NaN
            where it can't be computed.
        resamples: what was drawn.
        biased: whether to mirror the interval at the value, and to widen it to hold the value.
        bounds: between which it has to lie.

    Returns:
        NaN twice with fewer than two templates, or where nothing can be computed.
    """
    values = draws[0][~np.isnan(draws[0])]
    if np.isnan(value) or values.size == 0 or resamples.n_clusters < 2:
        return NAN, NAN
    half = half_width(draws[1:], resamples.factors, resamples.confidence)
    center, spread = values.mean(), values.std()
    low, high = center, center
    if spread > 1e-12:  # else all resamples agree
        outer = (1 + resamples.confidence) / 2
        stretch = half / (ndtri(outer) * spread)
        low, high = center + stretch * (np.quantile(values, [1 - outer, outer]) - center)
    if biased:
        low, high = min(2 * value - high, value), max(2 * value - low, value)
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def unseen_share(n: int, confidence: float) -> float:
    """Upper Clopper-Pearson bound of a share of which 0 of n were seen: 1 − ((1 − confidence)/2)^(1/n)."""
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def _estimate(
    points: Floats, draws: Floats, metric: Metric, resamples: Resamples, bounds: tuple[float, float]
) -> Estimate:
    """An estimate from the values of the partition seeds and the resampled averages.

    Where every resample agrees (all episodes succeed, or none), the bootstrap would claim certainty. Then templates
    that behave otherwise may still make up the exact bound on a share of which none of n was seen.
    """
    value = float(points.mean())
    spread = float(points.std(ddof=1)) if len(points) > 1 else NAN
    low, high = interval(value, draws, resamples, biased=metric.biased, bounds=bounds)
    if metric.share and low == high:
        unseen = unseen_share(resamples.n_clusters, resamples.confidence)
        low, high = max(value - unseen, bounds[0]), min(value + unseen, bounds[1])
    return Estimate(value, low, high, spread)


def estimate(tallies: Mapping[int, Tally], metric: Metric, resamples: Resamples) -> Estimate:
    """A metric with its interval, averaged over partition seeds. Fewer than two templates give no interval.

    Args:
        tallies: partition seed → the method's sums.
        metric: what to compute.
        resamples: the shared draws.
    """
    return _estimate(*resampled(tallies, metric, resamples), metric, resamples, (metric.bottom, metric.top))


def difference(
    first: Mapping[int, Tally], second: Mapping[int, Tally], metric: Metric, resamples: Resamples
) -> Estimate:
    """``first`` − ``second`` with a paired interval: both are recomputed on the same draws.

    Args:
        first: partition seed → sums of one method.
        second: the same for the other, over the same tasks in the same order.
        metric: what to compute for each.
        resamples: the shared draws.

    Raises:
        R2VError: if the two were not made from the same tasks.
    """
    if {s: t.tasks for s, t in first.items()} != {s: t.tasks for s, t in second.items()}:
        raise R2VError("a paired difference needs the same tasks on both sides")
    points_a, draws_a = resampled(first, metric, resamples)
    points_b, draws_b = resampled(second, metric, resamples)
    reach = metric.top - metric.bottom
    return _estimate(points_a - points_b, draws_a - draws_b, metric, resamples, (-reach, reach))


@dataclass(frozen=True)
class McNemar:
    """Discordant pairs and what they say."""

    only_first: int
    """b: pairs in which only the first succeeded."""
    only_second: int
    """c: pairs in which only the second succeeded."""
    p: float
    """Two-sided exact p-value."""


def mcnemar_exact(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact McNemar test: given b + c discordant pairs, b is Binomial(b + c, ½) under no difference.

    Args:
        first: success of one method on each pair, shape (n,), bool.
        second: success of the other on the same pairs.

    Raises:
        R2VError: if the lengths differ.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape:
        raise R2VError(f"McNemar's test needs pairs, got {a.size} and {b.size} outcomes")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return McNemar(only_a, only_b, min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))))


EXACT_UP_TO = 14
"""Clusters with which all 2^n flips are looked at; with more, :data:`FLIPS` random ones."""
FLIPS = 20_000


def flips(n: int, generator: np.random.Generator) -> Floats:
    """Signs for n clusters, shape (flips, n), the data themselves first (all 1).

    All 2^n up to 14 clusters, else :data:`FLIPS` random ones: counting the data as one more keeps a p-value from being
    0 and the test at its level.
    """
    if n <= EXACT_UP_TO:
        return np.array(np.meshgrid(*[[1.0, -1.0]] * n)).reshape(n, -1).T
    return np.vstack([np.ones(n), generator.choice([1.0, -1.0], size=(FLIPS, n))])


def flip_p(statistics: ArrayLike) -> float:
    """Two-sided p-value: the share of flips whose statistic is at least as far from 0 as the data's, the first.

    Args:
        statistics: one for each row of :func:`flips`; NaN if the data's is.
    """
    found = np.asarray(statistics, dtype=float)
    return NAN if np.isnan(found[0]) else float(np.mean(np.abs(found) >= abs(found[0]) - 1e-9))


def sign_flip(differences: ArrayLike, generator: np.random.Generator) -> float:
    """Two-sided p-value of "the two methods are exchangeable within each cluster", by flipping whole clusters.

    Under that hypothesis the sign of each cluster's summed difference is a fair coin, whatever its episodes have in
    common (Fisher 1935; Romano 1990), given these worlds and training seeds. The statistic is the absolute value of the
    total.

    Args:
        differences: each cluster's sum of (success of the first − success of the second), shape (n,).
        generator: source of randomness, used with more than 14 clusters.
    """
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]  # a cluster without a difference adds nothing under either sign
    return flip_p(flips(d.size, generator) @ d) if d.size else 1.0


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down correction of a family of p-values, in their order (Holm 1979); empty for none.

    The i-th smallest of n is multiplied by n − i + 1, then no corrected value may lie below a smaller one's.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def verdict(delta: Estimate, p_corrected: float, level: float = 0.05) -> str:
    """'better', 'worse' or 'not shown'.

    A difference counts as shown when the corrected p-value is below ``level`` *and* the interval excludes 0.
    """
    if not p_corrected < level or not (delta.low > 0 or delta.high < 0):
        return "not shown"
    return "better" if delta.value > 0 else "worse"
