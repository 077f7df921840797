"""Uncertainty and comparison: bootstrap over templates, sign-flip tests, exact McNemar, Holm.

Episodes of one template are alike (variants of one task under other noise), so the bootstrap resamples whole templates
with all their tasks and perturbation seeds (cluster bootstrap, Davison & Hinkley 1997, §3.8), and tests flip them
whole. Means get percentile intervals. A minimum, a tail mean or a calibration error is pushed one way by noise, and a
resample is pushed once more; those get the basic interval (ibid., §5.2), which reflects that push back. Both are wider
where templates are few (:func:`tail_share`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm
from scipy.stats import t as student

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


def cluster_weights(strata: Sequence[object], n_resamples: int, generator: np.random.Generator) -> Floats:
    """How often each cluster is drawn in each bootstrap resample.

    Clusters are drawn with replacement within their stratum, as many as it has.

    Args:
        strata: the stratum of each cluster.
        n_resamples: B.
        generator: source of randomness.

    Returns:
        Shape (B, clusters); every row sums to the number of clusters.
    """
    names = [repr(stratum) for stratum in strata]
    weights = np.zeros((n_resamples, len(names)))
    for name in sorted(set(names)):
        members = [i for i, other in enumerate(names) if other == name]
        weights[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), n_resamples)
    return weights


@dataclass(frozen=True)
class Resamples:
    """One set of draws, shared by all methods so that their differences are paired."""

    weights: dict[int, Floats]
    """Partition seed → shape (B, tasks of that seed)."""
    n_clusters: int
    """Templates drawn from."""
    confidence: float


def draw(
    templates: Mapping[int, Sequence[str]], n_resamples: int, confidence: float, generator: np.random.Generator
) -> Resamples:
    """Draw templates for every partition seed at once; all tasks of a template are drawn together.

    A template's stratum is the set of partition seeds it occurs in: seeds with templates of their own are resampled
    apart, one that all seeds share is drawn for all of them together.

    Args:
        templates: partition seed → the template of each task, in the order of the tallies.
        n_resamples: B.
        confidence: coverage of the intervals, in (0, 1).
        generator: source of randomness.

    Raises:
        R2VError: if there are no tasks.
    """
    members: dict[str, set[int]] = {}
    for seed, names in templates.items():
        for name in names:
            members.setdefault(name, set()).add(seed)
    if not members:
        raise R2VError("no tasks to resample")
    ordered = sorted(members)
    weights = cluster_weights([tuple(sorted(members[name])) for name in ordered], n_resamples, generator)
    column = {name: i for i, name in enumerate(ordered)}
    drawn = {seed: weights[:, [column[name] for name in names]] for seed, names in templates.items()}
    return Resamples(drawn, len(ordered), confidence)


def resampled(tallies: Mapping[int, Tally], metric: Metric, resamples: Resamples) -> tuple[Floats, Floats]:
    """A metric on the data and on each resample, averaged over partition seeds.

    Returns:
        The value of each partition seed, shape (seeds,), and the resampled averages, shape (B,).
    """
    points = np.array([metric.compute(tally, np.ones((1, len(tally.tasks))))[0] for tally in tallies.values()])
    draws = np.stack([metric.compute(tally, resamples.weights[seed]) for seed, tally in tallies.items()])
    return points, draws.mean(axis=0)


def tail_share(n: int, confidence: float) -> float:
    """Share of resamples outside each end of an interval from n clusters.

    A bootstrap takes the deviation seen for the true one, and divides by n where n − 1 would be right. Both matter for
    means of few clusters, and both are made up for by going further out: Φ(−t √(n/(n − 1))), with t the quantile of
    Student's distribution with n − 1 degrees (Hesterberg 2015, "expanded percentile interval").
    """
    reach = student.ppf((1 + confidence) / 2, n - 1) * np.sqrt(n / (n - 1))
    return float(norm.cdf(-reach))


def percentile_interval(draws: ArrayLike, confidence: float, n: int) -> tuple[float, float]:
    """The central resampled values (those that could be computed), :func:`tail_share` left out at each end, else NaN.

    Args:
        draws: resampled values, shape (B,).
        confidence: coverage aimed at.
        n: clusters that were resampled, ≥ 2.
    """
    values = np.asarray(draws, dtype=float)
    values = values[~np.isnan(values)]
    if values.size == 0 or n < 2:
        return NAN, NAN
    tail = tail_share(n, confidence)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def basic_interval(value: float, draws: ArrayLike, confidence: float, n: int) -> tuple[float, float]:
    """The percentile interval mirrored at the estimate, [2θ − q_high, 2θ − q_low], widened to hold the estimate."""
    low, high = percentile_interval(draws, confidence, n)
    return min(2 * value - high, value), max(2 * value - low, value)


def unseen_share(n: int, confidence: float) -> float:
    """Upper Clopper-Pearson bound of a share of which 0 of n were seen: 1 − ((1 − confidence)/2)^(1/n)."""
    return float(binomtest(0, n).proportion_ci(confidence, method="exact").high)


def _estimate(points: Floats, draws: Floats, metric: Metric, resamples: Resamples, lowest: float) -> Estimate:
    """An estimate from the values of the partition seeds and the resampled averages.

    Where every resample agrees (all episodes succeed, or none), the bootstrap would claim certainty. Then templates
    that behave otherwise may still make up the exact bound on a share of which none of n was seen.
    """
    value = float(points.mean())
    spread = float(points.std(ddof=1)) if len(points) > 1 else NAN
    if np.isnan(value) or resamples.n_clusters < 2:
        return Estimate(value, spread=spread)
    if metric.biased:
        low, high = basic_interval(value, draws, resamples.confidence, resamples.n_clusters)
    else:
        low, high = percentile_interval(draws, resamples.confidence, resamples.n_clusters)
    if metric.share and low == high:
        unseen = unseen_share(resamples.n_clusters, resamples.confidence)
        low, high = value - unseen, value + unseen
    if metric.share or metric.biased:
        low, high = max(low, lowest), min(high, 1.0)
    return Estimate(value, low, high, spread)


def estimate(tallies: Mapping[int, Tally], metric: Metric, resamples: Resamples) -> Estimate:
    """A metric with its interval, averaged over partition seeds. Fewer than two templates give no interval.

    Args:
        tallies: partition seed → the method's sums.
        metric: what to compute.
        resamples: the shared draws.
    """
    return _estimate(*resampled(tallies, metric, resamples), metric, resamples, lowest=0.0)


def difference(
    first: Mapping[int, Tally], second: Mapping[int, Tally], metric: Metric, resamples: Resamples
) -> Estimate:
    """``first`` − ``second`` with a paired interval: both are recomputed on the same drawn templates.

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


def bootstrap_p(value: float, draws: ArrayLike, n: int) -> float:
    """Two-sided p-value of "the true value is 0", from Student's t with the bootstrap's standard error.

    The standard error is the resampled values' deviation times √(n/(n − 1)), which the bootstrap of n clusters leaves
    out (Davison & Hinkley 1997, §2.6 and §5.2). Assumes that the value is about as a mean over clusters is. A share of
    resamples beyond 0 would assume less, but can't be smaller than one in B, which Holm's correction multiplies.

    Args:
        value: on the data.
        draws: on each resample, shape (B,).
        n: clusters that were resampled; with fewer than 2, NaN.
    """
    values = np.asarray(draws, dtype=float)
    values = values[~np.isnan(values)]
    if values.size < 2 or n < 2 or np.isnan(value):
        return NAN
    error = float(values.std(ddof=1)) * np.sqrt(n / (n - 1))
    if error < 1e-12:  # all resamples agree
        return 1.0 if abs(value) < 1e-12 else 0.0
    return float(2 * student.sf(abs(value) / error, n - 1))


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


EXACT_UP_TO = 14
"""Clusters with which all 2^n flips are looked at; with more, :data:`FLIPS` random ones."""
FLIPS = 20_000


def sign_flip(differences: ArrayLike, generator: np.random.Generator) -> float:
    """Two-sided p-value of "the two methods are exchangeable within each cluster", by flipping whole clusters.

    Under that hypothesis the sign of each cluster's summed difference is a fair coin, whatever its episodes have in
    common (Fisher 1935; Romano 1990), given these worlds and training seeds. The statistic is the absolute value of the
    total. Random flips count the data themselves as one more, so that p is never 0 and the test keeps its level.

    Args:
        differences: each cluster's sum of (success of the first − success of the second), shape (n,).
        generator: source of randomness, used with more than 14 clusters.
    """
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]  # a cluster without a difference adds nothing under either sign
    if d.size == 0:
        return 1.0
    if d.size <= EXACT_UP_TO:
        signs = np.array(np.meshgrid(*[[1.0, -1.0]] * d.size)).reshape(d.size, -1).T
        return float(np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-9))
    signs = generator.choice([1.0, -1.0], size=(FLIPS, d.size))
    extreme = np.sum(np.abs(signs @ d) >= abs(d.sum()) - 1e-9)
    return float((extreme + 1) / (FLIPS + 1))


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
