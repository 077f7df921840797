"""Statistics against SciPy, statsmodels and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import bootstrap, norm, permutation_test
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from benchmarks.intervals import coverage
from benchmarks.made_up import END_COSTS, Population, deal, sweep
from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import SUMMED, Tally, metric_functions
from r2v_core.evaluation.resampling import Factor, Resamples, cluster_weights, draw, resampled
from r2v_core.evaluation.statistics import (
    NAN,
    Estimate,
    difference,
    estimate,
    half_width,
    holm,
    interval,
    mcnemar_exact,
    sign_flip,
    unseen_share,
    verdict,
)
from r2v_core.results.frontier import cost_area

METRICS = metric_functions(0.2)


def tally_of(success: np.ndarray, prefix: str = "t", worlds: bool = False, first_z: int = 0) -> Tally:
    """Successes of shape (tasks, seeds), one episode each."""
    tasks, zs = success.shape
    zero = np.zeros(success.shape)
    names = tuple(f"{prefix}{i:03d}" for i in range(tasks))
    sums = dict.fromkeys(SUMMED, zero) | {"success": success.astype(float)}
    z = tuple(range(first_z, first_z + zs))
    return Tally(names, names, z, worlds, np.ones_like(zero), sums, zero, zero, np.zeros((tasks, 10, 3)))


def resamples(by_seed: dict[int, Tally], n: int = 4000, confidence: float = 0.95) -> Resamples:
    worlds = {s: t.zs if t.worlds else () for s, t in by_seed.items()}
    return draw({s: t.templates for s, t in by_seed.items()}, worlds, n, confidence, np.random.default_rng(0))


def by_scipy(values: np.ndarray) -> tuple[float, float]:
    """SciPy's percentile interval of a mean, stretched from the normal quantile to Student's, n/(n − 1) put back."""
    plain = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5))
    n, ends = len(values), np.array(plain.confidence_interval)
    stretch = student.ppf(0.975, n - 1) / norm.ppf(0.975) * np.sqrt(n / (n - 1))
    return tuple(values.mean() + stretch * (ends - values.mean()))


def random_success(tasks: int, zs: int, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.random((tasks, zs)) < generator.beta(2, 2, (tasks, 1))


def test_cluster_bootstrap_agrees_with_scipy_on_task_means() -> None:
    success = random_success(25, 8)
    by_seed = {1: tally_of(success)}
    ours = estimate(by_seed, METRICS["success_rate"], resamples(by_seed, 20_000))
    assert ours.value == pytest.approx(success.mean())
    assert (ours.low, ours.high) == pytest.approx(by_scipy(success.mean(axis=1)), abs=0.006)


def test_paired_difference_agrees_with_scipy_and_is_narrower_than_an_unpaired_one() -> None:
    a = random_success(25, 8)
    b = a & (np.random.default_rng(2).random(a.shape) < 0.9)
    first, second = {1: tally_of(a)}, {1: tally_of(b)}
    ours = difference(first, second, METRICS["success_rate"], resamples(first, 20_000))
    gaps = a.mean(axis=1) - b.mean(axis=1)
    assert ours.value == pytest.approx(gaps.mean())
    assert (ours.low, ours.high) == pytest.approx(by_scipy(gaps), abs=0.004)
    alone = estimate(first, METRICS["success_rate"], resamples(first))
    assert ours.high - ours.low < alone.high - alone.low


def test_one_factor_is_students_interval() -> None:
    values = np.random.default_rng(1).normal(size=12)
    drawn = np.random.default_rng(2).multinomial(12, np.full(12, 1 / 12), 20_000) @ values / 12
    still = np.zeros((2, 20_000))
    found = half_width(np.vstack([drawn, still]), (Factor(12), Factor(1), Factor(1)), 0.95)
    assert found == pytest.approx(student.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12), rel=0.02)


def test_templates_and_worlds_add_up_as_in_an_analysis_of_variance() -> None:
    success = np.random.default_rng(3).random((12, 20)) < np.linspace(0.2, 0.9, 20)  # worlds differ
    tallies = {1: tally_of(success, worlds=True)}
    drawn = resamples(tallies, 20_000)
    templates, worlds = success.mean(axis=1).var(ddof=1) / 12, success.mean(axis=0).var(ddof=1) / 20
    freedom = (templates + worlds) ** 2 / (templates**2 / 11 + worlds**2 / 19)
    _, draws = resampled(tallies, METRICS["success_rate"], drawn)
    expected = student.ppf(0.975, freedom) * np.sqrt(templates + worlds)
    assert half_width(draws[1:], drawn.factors, 0.95) == pytest.approx(expected, rel=0.02)
    found, given = (estimate({1: t}, METRICS["success_rate"], drawn) for t in (tallies[1], tally_of(success)))
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.03)
    assert found.value == given.value and found.high - found.low > 1.3 * (given.high - given.low)


def test_drawing_trainings_draws_their_worlds_and_adds_shared_templates() -> None:
    generator = np.random.default_rng(4)
    trained = [generator.random((12, 20)) < rate for rate in (0.3, 0.5, 0.9)]
    tallies = {s: tally_of(one, worlds=True, first_z=100 * s) for s, one in enumerate(trained)}
    drawn = resamples(tallies, 20_000)
    assert drawn.factors == (Factor(12), Factor(60, 3, nested=True), Factor(3))
    means, of_templates = np.mean(trained, axis=(1, 2)), np.mean(trained, axis=(0, 2))
    seeds, templates = means.var(ddof=1) / 3, of_templates.var(ddof=1) / 12
    freedom = (seeds + templates) ** 2 / (seeds**2 / 2 + templates**2 / 11)
    _, draws = resampled(tallies, METRICS["success_rate"], drawn)
    together = student.ppf(0.975, freedom) * np.sqrt(seeds + templates)
    expected = max(together, student.ppf(0.975, 2) * np.sqrt(seeds))
    assert half_width(draws[1:], drawn.factors, 0.95) == pytest.approx(expected, rel=0.02)
    # every draw is what templates, worlds and trainings that were drawn give together
    b, total = 7, 0.0
    for s, one in enumerate(trained):
        w, v = drawn.templates[s][b], drawn.worlds_of(s, tallies[s])
        assert v is not None
        total += drawn.seeds[b, s] * (w @ one @ v[b]) / (w.sum() * v[b].sum()) / 3
    assert draws[0, b] == pytest.approx(total)


def test_trainings_that_agree_by_chance_do_not_hide_their_worlds() -> None:
    same = np.random.default_rng(5).random((12, 20)) < np.linspace(0.1, 0.9, 20)
    tallies = {s: tally_of(same, worlds=True, first_z=100 * s) for s in (1, 2, 3)}
    found = estimate(tallies, METRICS["success_rate"], resamples(tallies))
    worlds = same.mean(axis=0).var(ddof=1) / 60
    assert found.spread == 0 and (found.high - found.low) / 2 > student.ppf(0.975, 30) * np.sqrt(worlds)


def test_an_extreme_is_given_its_worlds() -> None:
    success = random_success(12, 20, seed=7)
    drawn = resamples({1: tally_of(success, worlds=True)})
    met, none = ({1: tally_of(success, worlds=worlds)} for worlds in (True, False))
    for name in ("worst_seed_sr", "cvar_failure", "bottom_10_sr"):
        assert estimate(met, METRICS[name], drawn) == estimate(none, METRICS[name], drawn)


@pytest.mark.parametrize(("seeds", "population"), [(1, Population(template=0.5, world=0.7)), (3, Population(seed=0.7))])
def test_intervals_hold_the_truth_as_often_as_said(seeds: int, population: Population) -> None:
    """12 templates in 20 worlds; over templates alone, intervals hold it too rarely."""
    found = coverage(population, seeds, 12, 20, repeats=150, resamples=200)
    for name in ("success", "difference"):
        assert found[name].held / found[name].n >= 0.93
    assert found["templates only"].held / found["templates only"].n < 0.88


def test_intervals_hold_the_truth_where_worlds_are_dealt() -> None:
    """Each seed has templates and worlds of its own, a template meets two of them; two rules are swept."""
    met = deal(40, 20, 2, seed=1)
    assert (met.sum(axis=1) == 2).all() and met.sum() == 80
    for family in range(4):
        assert np.ptp(met[family::4].sum(axis=0)) <= 1
    found = coverage(Population(), 3, 40, 20, repeats=60, resamples=100, dealt=2)
    for name in ("success", "difference", "area"):
        assert found[name].n == 60 and found[name].held / 60 >= 0.9
    assert found["templates only"].held / 60 < 0.88


def test_the_true_area_is_what_many_episodes_come_to() -> None:
    population, random = Population(template=1.5, world=0.3, seed=0.0), np.random.default_rng(1)
    logits, hard = population.draw(1, 20_000, 2, random, own=True)
    met, prefix = [np.ones((20_000, 2))], ["t"]
    cost, won = [np.mean(END_COSTS[i]) for i in range(2)], [expit(logits[i + 2]).mean() for i in range(2)]
    for point in sweep(logits, hard, 0, met, prefix, random):
        cost.append(point[0].sums["cost"].mean())
        won.append(point[0].success.mean())
    assert cost_area(np.array(cost)[:, None], np.array(won)[:, None], (0, 1))[0] == pytest.approx(
        population.true_area(0), abs=0.01
    )


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


def units(templates: dict[int, tuple[str, ...]], n: int = 200) -> Resamples:
    return draw(templates, dict.fromkeys(templates, ()), n, 0.95, np.random.default_rng(0))


def test_tasks_of_one_template_are_drawn_together() -> None:
    found = units({1: ("a", "a", "b")})
    assert np.array_equal(found.templates[1][:, 0], found.templates[1][:, 1]) and found.n_clusters == 2
    assert (found.templates[1][:, 0] + found.templates[1][:, 2] == 2).all()


def test_tasks_shared_by_seeds_are_drawn_together_and_others_apart() -> None:
    shared = units({1: ("a", "b", "c"), 2: ("a", "b", "c")})
    assert np.array_equal(shared.templates[1], shared.templates[2]) and shared.factors[0] == Factor(3)
    apart = units({1: ("a", "b", "c"), 2: ("d", "e", "f")})
    assert not np.array_equal(apart.templates[1], apart.templates[2])
    assert apart.factors[0] == Factor(6, 2, nested=True) and (apart.templates[2].sum(axis=1) == 3).all()


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
    held = {True: 0, False: 0}
    for _ in range(60):
        true = np.clip(0.7 + 0.1 * generator.standard_normal(20), 0, 1)
        tally = {1: tally_of(generator.random((30, 20)) < true, worlds=True)}
        drawn = resamples(tally, 300)
        points, draws = resampled(tally, METRICS["cvar_failure"], drawn)
        target = 1 - np.sort(true)[:4].mean()
        for basic in held:
            low, high = interval(float(points[0]), draws, drawn, biased=basic)
            held[basic] += low <= target <= high
    assert held[True] >= 50 > held[False] + 10


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


def test_differences_need_the_same_tasks_and_worlds() -> None:
    a, b = {1: tally_of(np.ones((3, 2)), "a")}, {1: tally_of(np.ones((3, 2)), "b")}
    with pytest.raises(R2VError, match="same tasks"):
        difference(a, b, METRICS["success_rate"], resamples(a))
    met, others = ({1: tally_of(np.ones((3, 2)), worlds=True, first_z=z)} for z in (1, 2))
    with pytest.raises(R2VError, match="met perturbation seed 3"):
        difference(met, others, METRICS["success_rate"], resamples(met))
    with pytest.raises(R2VError, match="no tasks"):
        draw({}, {}, 10, 0.95, np.random.default_rng(0))


def test_intervals_pass_over_resamples_without_a_value() -> None:
    drawn = units({1: ("a", "b", "c")})
    assert interval(1.0, np.tile([NAN, 1.0, 1.0], (4, 1)), drawn) == (1.0, 1.0)
    assert np.isnan(interval(1.0, np.full((4, 3), NAN), drawn)).all()
    assert interval(0.5, np.tile([0.0, 1.0], (4, 50)), drawn, bounds=(0.0, 1.0)) == (0.0, 1.0)


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


def test_mcnemar_by_hand() -> None:
    # 6 discordant pairs, all one way: p = 2 · (1/2)^6
    assert mcnemar_exact([True] * 6 + [True], [False] * 6 + [True]).p == pytest.approx(2 / 64)
    with pytest.raises(R2VError, match="pairs"):
        mcnemar_exact([True], [True, False])


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 → ·4 ·3 ·2 ·1 = .04 .06 .06 .04 → running maximum
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]).size == 0


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
