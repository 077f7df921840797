"""Statistics against SciPy, statsmodels and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import Tally, metric_functions
from r2v_core.evaluation.statistics import (
    NAN,
    Estimate,
    basic_interval,
    bootstrap_p,
    cluster_weights,
    difference,
    draw,
    estimate,
    holm,
    mcnemar_exact,
    percentile_interval,
    sign_flip,
    tail_share,
    unseen_share,
    verdict,
)

METRICS = metric_functions(0.2)


def tally_of(success: np.ndarray, prefix: str = "t") -> Tally:
    """Successes of shape (tasks, seeds), one episode each."""
    tasks, zs = success.shape
    zero = np.zeros(tasks)
    sums = dict.fromkeys(("teacher_calls", "n_steps", "cost", "cost_usd", "tokens", "latency"), zero)
    sums |= {"success": success.sum(axis=1), "safety_failure": zero, "injected": zero}
    names = tuple(f"{prefix}{i:03d}" for i in range(tasks))
    bins = np.zeros((tasks, 10, 3))
    return Tally(names, names, tuple(range(zs)), np.ones((tasks, zs)), success.astype(float), sums, bins, zero)


def resamples(by_seed: dict[int, Tally], n: int = 4000, confidence: float = 0.95):  # type: ignore[no-untyped-def]
    return draw({s: t.templates for s, t in by_seed.items()}, n, confidence, np.random.default_rng(0))


def random_success(tasks: int, zs: int, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.random((tasks, zs)) < generator.beta(2, 2, (tasks, 1))


def test_cluster_bootstrap_agrees_with_scipy_on_task_means() -> None:
    success = random_success(25, 8)
    by_seed = {1: tally_of(success)}
    ours = estimate(by_seed, METRICS["success_rate"], resamples(by_seed, 20_000))
    theirs = bootstrap(
        (success.mean(axis=1),),
        np.mean,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail_share(25, 0.95),
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.value == pytest.approx(success.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_paired_difference_agrees_with_scipy_and_is_narrower_than_an_unpaired_one() -> None:
    a = random_success(25, 8)
    b = a & (np.random.default_rng(2).random(a.shape) < 0.9)
    first, second = {1: tally_of(a)}, {1: tally_of(b)}
    ours = difference(first, second, METRICS["success_rate"], resamples(first, 20_000))
    gaps = a.mean(axis=1) - b.mean(axis=1)
    theirs = bootstrap(
        (gaps,),
        np.mean,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail_share(25, 0.95),
        method="percentile",
        rng=np.random.default_rng(5),
    )
    interval = theirs.confidence_interval
    assert ours.value == pytest.approx(gaps.mean())
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.004)
    alone = estimate(first, METRICS["success_rate"], resamples(first))
    assert ours.high - ours.low < alone.high - alone.low


def test_a_cluster_is_drawn_whole() -> None:
    # 30 equal episodes a task carry no more information than one: the interval is that of 10 tasks
    success = np.repeat(np.arange(10)[:, None] < 6, 30, axis=1)
    by_seed = {1: tally_of(success)}
    found = estimate(by_seed, METRICS["success_rate"], resamples(by_seed))
    assert found.low == pytest.approx(0.2, abs=0.051) and found.high == pytest.approx(0.95, abs=0.051)


def test_weights_keep_each_stratum_whole() -> None:
    weights = cluster_weights(["a", "a", "b", "b", "b"], 200, np.random.default_rng(0))
    assert weights.shape == (200, 5)
    assert (weights[:, :2].sum(axis=1) == 2).all() and (weights[:, 2:].sum(axis=1) == 3).all()


def test_tasks_of_one_template_are_drawn_together() -> None:
    found = draw({1: ("a", "a", "b")}, 200, 0.95, np.random.default_rng(0))
    assert np.array_equal(found.weights[1][:, 0], found.weights[1][:, 1]) and found.n_clusters == 2
    assert (found.weights[1][:, 0] + found.weights[1][:, 2] == 2).all()


def test_tasks_shared_by_seeds_are_drawn_together_and_others_apart() -> None:
    shared = draw({1: ("a", "b", "c"), 2: ("a", "b", "c")}, 50, 0.95, np.random.default_rng(0))
    assert np.array_equal(shared.weights[1], shared.weights[2]) and shared.n_clusters == 3
    apart = draw({1: ("a", "b", "c"), 2: ("d", "e", "f")}, 50, 0.95, np.random.default_rng(0))
    assert not np.array_equal(apart.weights[1], apart.weights[2]) and apart.n_clusters == 6
    assert (apart.weights[2].sum(axis=1) == 3).all()


def test_the_same_seed_gives_the_same_interval() -> None:
    by_seed = {1: tally_of(random_success(9, 4))}
    assert estimate(by_seed, METRICS["cvar_failure"], resamples(by_seed)) == estimate(
        by_seed, METRICS["cvar_failure"], resamples(by_seed)
    )


def test_several_partition_seeds_are_averaged_with_their_spread() -> None:
    by_seed = {1: tally_of(np.array([[1, 1], [0, 0]]), "a"), 2: tally_of(np.array([[1, 1], [1, 0]]), "b")}
    found = estimate(by_seed, METRICS["success_rate"], resamples(by_seed))
    assert found.value == 0.625
    assert found.spread == pytest.approx(np.std([0.5, 0.75], ddof=1))


@pytest.mark.parametrize("metric", ["worst_seed_sr", "cvar_failure", "bottom_10_sr"])
def test_intervals_of_extremes_hold_the_estimate_and_stay_in_bounds(metric: str) -> None:
    by_seed = {1: tally_of(random_success(12, 20, seed=7))}
    found = estimate(by_seed, METRICS[metric], resamples(by_seed))
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high


def test_the_basic_interval_covers_cvar_far_better_than_percentiles() -> None:
    generator = np.random.default_rng(0)
    basic = percentile = 0
    for _ in range(60):
        true = np.clip(0.7 + 0.1 * generator.standard_normal(20), 0, 1)
        success = generator.random((30, 20)) < true
        tally = {1: tally_of(success)}
        draws = METRICS["cvar_failure"].compute(tally[1], resamples(tally, 300).weights[1])
        value = float(METRICS["cvar_failure"].compute(tally[1], np.ones((1, 30)))[0])
        target = 1 - np.sort(true)[:4].mean()
        low, high = basic_interval(value, draws, 0.95, 30)
        basic += low <= target <= high
        low, high = percentile_interval(draws, 0.95, 30)
        percentile += low <= target <= high
    assert basic >= 50 > percentile + 10


def test_agreement_of_all_episodes_is_not_certainty() -> None:
    by_seed = {1: tally_of(np.ones((8, 3)))}
    found = estimate(by_seed, METRICS["success_rate"], resamples(by_seed))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 8))  # Clopper-Pearson, 8 of 8
    same = difference(by_seed, by_seed, METRICS["success_rate"], resamples(by_seed))
    assert same.value == 0 and same.low == -same.high == pytest.approx(-unseen_share(8, 0.95))


def test_one_task_gives_no_interval() -> None:
    by_seed = {1: tally_of(np.ones((1, 3)))}
    found = estimate(by_seed, METRICS["success_rate"], resamples(by_seed))
    assert found.value == 1 and np.isnan(found.low) and np.isnan(found.high)


def test_a_metric_without_data_has_neither_value_nor_interval() -> None:
    by_seed = {1: tally_of(np.ones((3, 3)))}
    found = estimate(by_seed, METRICS["ece"], resamples(by_seed))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_differences_need_the_same_tasks() -> None:
    a, b = {1: tally_of(np.ones((3, 2)), "a")}, {1: tally_of(np.ones((3, 2)), "b")}
    with pytest.raises(R2VError, match="same tasks"):
        difference(a, b, METRICS["success_rate"], resamples(a))
    with pytest.raises(R2VError, match="no tasks"):
        draw({}, 10, 0.95, np.random.default_rng(0))


def test_percentiles_pass_over_resamples_without_a_value() -> None:
    assert percentile_interval([NAN, 1.0, 1.0], 0.95, 3) == (1.0, 1.0)
    assert np.isnan(percentile_interval([NAN, NAN], 0.95, 2)).all()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_agrees_with_statsmodels(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    table = [[pairs.count((a, b)) for b in (True, False)] for a in (True, False)]
    ours = mcnemar_exact(first, second)
    assert (ours.only_first, ours.only_second) == (table[0][1], table[1][0])
    assert ours.p == pytest.approx(
        1.0 if ours.only_first + ours.only_second == 0 else mcnemar(table, exact=True).pvalue
    )


@pytest.mark.parametrize("n", [3, 10, 14, 15, 40])
def test_sign_flips_agree_with_scipy(n: int) -> None:
    generator = np.random.default_rng(n)
    d = generator.integers(-3, 5, n).astype(float)
    theirs = permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=50_000, rng=np.random.default_rng(1)
    ).pvalue
    assert sign_flip(d, np.random.default_rng(2)) == pytest.approx(theirs, abs=0.012)


def test_sign_flips_by_hand() -> None:
    generator = np.random.default_rng(0)
    assert sign_flip([1, 2, 3], generator) == 2 / 8  # only all signs alike reach 6
    assert sign_flip([3, -1, 0], generator) == 1.0  # |3 − 1| is what every flip reaches at least
    assert sign_flip([0.0, 0.0], generator) == 1.0
    assert sign_flip([1.0] * 60, generator) == 1 / 20_001  # never 0


def test_sign_flips_keep_their_level_where_episodes_of_a_template_are_alike() -> None:
    """Two methods that win whole templates by lot: McNemar, which counts the episodes, says 'better' far too often."""
    generator = np.random.default_rng(3)
    ours, theirs = [], []
    for _ in range(400):
        won = generator.choice([-1, 1], 12)  # templates of ten episodes each
        ours.append(sign_flip(10.0 * won, generator) <= 0.05)
        theirs.append(mcnemar_exact(np.repeat(won > 0, 10), np.repeat(won < 0, 10)).p <= 0.05)
    assert np.mean(ours) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400) and np.mean(theirs) > 0.3


def test_few_clusters_are_covered_as_often_as_said() -> None:
    """Failure rates of single templates vary widely; the plain percentile interval covers too rarely."""
    generator = np.random.default_rng(4)
    covered, plain = [], []
    for _ in range(800):
        means = generator.binomial(20, generator.beta(1.5, 2.5, 12)) / 20
        draws = generator.multinomial(12, np.full(12, 1 / 12), 1000) @ means / 12
        low, high = percentile_interval(draws, 0.95, 12)
        covered.append(low <= 1.5 / 4 <= high)
        low, high = np.quantile(draws, [0.025, 0.975])
        plain.append(low <= 1.5 / 4 <= high)
    assert np.mean(covered) > 0.93 and np.mean(covered) > np.mean(plain) + 0.02


def test_mcnemar_by_hand() -> None:
    # 6 discordant pairs, all one way: p = 2 · (1/2)^6
    assert mcnemar_exact([True] * 6 + [True], [False] * 6 + [True]).p == pytest.approx(2 / 64)
    with pytest.raises(R2VError, match="pairs"):
        mcnemar_exact([True], [True, False])


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 → ·4 ·3 ·2 ·1 = .04 .06 .06 .04 → running maximum
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]).size == 0


@pytest.mark.parametrize("n", [2, 5, 12, 80])
def test_the_bootstraps_p_of_a_mean_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(0.2, 1.0, n)
    weights = cluster_weights([0] * n, 40_000, np.random.default_rng(0))
    found = bootstrap_p(float(values.mean()), weights @ values / n, n)
    assert found == pytest.approx(ttest_1samp(values, 0.0).pvalue, rel=0.04)


def test_the_bootstraps_p_where_nothing_varies() -> None:
    assert bootstrap_p(0.0, np.zeros(10), 12) == 1.0 and bootstrap_p(0.1, np.full(10, 0.1), 12) == 0.0
    assert np.isnan(bootstrap_p(0.1, [0.1, 0.2], 1)) and np.isnan(bootstrap_p(0.1, [NAN, NAN], 12))
    assert bootstrap_p(0.2, [0.1, NAN, 0.3, 0.2], 9) == bootstrap_p(0.2, [0.1, 0.3, 0.2], 9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_order_and_lies_between_raw_and_bonferroni(p: list[float]) -> None:
    raw, corrected = np.array(p), holm(p)
    assert (corrected >= raw - 1e-12).all() and (corrected <= np.minimum(1, raw * len(p)) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(raw)]) >= -1e-12).all()


@pytest.mark.parametrize("n", [1, 2, 7, 14])
def test_holm_agrees_with_statsmodels(n: int) -> None:
    p = np.random.default_rng(n).beta(0.4, 2, n).round(3)  # rounded, so that some are equal
    assert holm(p).tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())


@pytest.mark.parametrize(
    ("found", "p", "expected"),
    [
        (Estimate(0.2, 0.1, 0.3), 0.01, "better"),
        (Estimate(-0.2, -0.3, -0.1), 0.01, "worse"),
        (Estimate(0.2, 0.1, 0.3), 0.05, "not shown"),
        (Estimate(0.2, -0.01, 0.4), 0.001, "not shown"),
        (Estimate(0.2), 0.001, "not shown"),
        (Estimate(0.2, 0.1, 0.3), NAN, "not shown"),
    ],
)
def test_verdict_needs_test_and_interval(found: Estimate, p: float, expected: str) -> None:
    assert verdict(found, p) == expected
