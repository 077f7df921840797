"""Uncertainty and comparison: bootstrap over tasks, exact McNemar, Holm.

Episodes of one task are alike (the same game under other noise), so the bootstrap resamples whole tasks with all their
perturbation seeds (cluster bootstrap, Davison & Hinkley 1997, §3.8). Means get percentile intervals. A minimum, a tail
mean or a calibration error is pushed one way by noise, and a resample is pushed once more; those get the basic interval
(ibid., §5.2), which reflects that push back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import Metric, Tally

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


def task_weights(strata: Sequence[object], n_resamples: int, generator: np.random.Generator) -> Floats:
    """How often each task is drawn in each bootstrap resample.

    Tasks are drawn with replacement within their stratum, as many as it has.

    Args:
        strata: the stratum of each task.
        n_resamples: B.
        generator: source of randomness.

    Returns:
        Shape (B, tasks); every row sums to the number of tasks.
    """
    names = [repr(stratum) for stratum in strata]
    weights = np.zeros((n_resamples, len(names)))
    for name in sorted(set(names)):
        members = [i for i, other in enumerate(names) if other == name]
        weights[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), n_resamples)
    return weights


@dataclass(frozen=True)
class Resamples:
    """One set of task draws, shared by all methods so that their differences are paired."""

    weights: dict[int, Floats]
    """Partition seed → shape (B, tasks of that seed)."""
    n_tasks: int
    confidence: float


def draw(
    tasks: Mapping[int, Sequence[str]], n_resamples: int, confidence: float, generator: np.random.Generator
) -> Resamples:
    """Draw tasks for every partition seed at once.

    A task's stratum is the set of partition seeds it occurs in: seeds with tasks of their own are resampled apart, a
    task that all seeds share is drawn for all of them together.

    Args:
        tasks: partition seed → its task ids, in the order of the tallies.
        n_resamples: B.
        confidence: coverage of the intervals, in (0, 1).
        generator: source of randomness.

    Raises:
        R2VError: if there are no tasks.
    """
    members: dict[str, set[int]] = {}
    for seed, names in tasks.items():
        for name in names:
            members.setdefault(name, set()).add(seed)
    if not members:
        raise R2VError("no tasks to resample")
    ordered = sorted(members)
    weights = task_weights([tuple(sorted(members[name])) for name in ordered], n_resamples, generator)
    column = {name: i for i, name in enumerate(ordered)}
    return Resamples(
        {seed: weights[:, [column[name] for name in names]] for seed, names in tasks.items()}, len(ordered), confidence
    )


def resampled(tallies: Mapping[int, Tally], metric: Metric, resamples: Resamples) -> tuple[Floats, Floats]:
    """A metric on the data and on each resample, averaged over partition seeds.

    Returns:
        The value of each partition seed, shape (seeds,), and the resampled averages, shape (B,).
    """
    points = np.array([metric.compute(tally, np.ones((1, len(tally.tasks))))[0] for tally in tallies.values()])
    draws = np.stack([metric.compute(tally, resamples.weights[seed]) for seed, tally in tallies.items()])
    return points, draws.mean(axis=0)


def percentile_interval(draws: ArrayLike, confidence: float) -> tuple[float, float]:
    """The central share ``confidence`` of the resampled values (those that could be computed), else NaN."""
    values = np.asarray(draws, dtype=float)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return NAN, NAN
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def basic_interval(value: float, draws: ArrayLike, confidence: float) -> tuple[float, float]:
    """The percentile interval mirrored at the estimate, [2θ − q_high, 2θ − q_low], widened to hold the estimate."""
    low, high = percentile_interval(draws, confidence)
    return min(2 * value - high, value), max(2 * value - low, value)


def unseen_share(n: int, confidence: float) -> float:
    """Upper Clopper-Pearson bound of a share of which 0 of n were seen: 1 − ((1 − confidence)/2)^(1/n)."""
    return float(binomtest(0, n).proportion_ci(confidence, method="exact").high)


def _estimate(points: Floats, draws: Floats, metric: Metric, resamples: Resamples, lowest: float) -> Estimate:
    """An estimate from the values of the partition seeds and the resampled averages.

    Where every resample agrees (all episodes succeed, or none), the bootstrap would claim certainty. Then tasks that
    behave otherwise may still make up the exact bound on a share of which none of n tasks was seen.
    """
    value = float(points.mean())
    spread = float(points.std(ddof=1)) if len(points) > 1 else NAN
    if np.isnan(value) or resamples.n_tasks < 2:
        return Estimate(value, spread=spread)
    if metric.biased:
        low, high = basic_interval(value, draws, resamples.confidence)
    else:
        low, high = percentile_interval(draws, resamples.confidence)
    if metric.share and low == high:
        unseen = unseen_share(resamples.n_tasks, resamples.confidence)
        low, high = value - unseen, value + unseen
    if metric.share or metric.biased:
        low, high = max(low, lowest), min(high, 1.0)
    return Estimate(value, low, high, spread)


def estimate(tallies: Mapping[int, Tally], metric: Metric, resamples: Resamples) -> Estimate:
    """A metric with its interval, averaged over partition seeds. Fewer than two tasks give no interval.

    Args:
        tallies: partition seed → the method's sums.
        metric: what to compute.
        resamples: the shared draws.
    """
    return _estimate(*resampled(tallies, metric, resamples), metric, resamples, lowest=0.0)


def difference(
    first: Mapping[int, Tally], second: Mapping[int, Tally], metric: Metric, resamples: Resamples
) -> Estimate:
    """``first`` − ``second`` with a paired interval: both are recomputed on the same drawn tasks.

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
    return _estimate(points_a - points_b, draws_a - draws_b, metric, resamples, lowest=-1.0)


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
    p = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


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

    A difference counts as shown when the corrected p-value is below ``level`` *and* the interval over tasks excludes 0:
    McNemar's test takes pairs as independent, the bootstrap over tasks does not.
    """
    if not p_corrected < level or not (delta.low > 0 or delta.high < 0):
        return "not shown"
    return "better" if delta.value > 0 else "worse"
