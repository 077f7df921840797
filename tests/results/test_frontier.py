"""The threshold sweep: points, areas and their comparison."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from benchmarks.made_up import tally_of
from r2v_core.evaluation.frame import Frames, frames
from r2v_core.evaluation.statistics import Estimate, holm
from r2v_core.results.bundles import Analysis
from r2v_core.results.comparisons import compare_methods
from r2v_core.results.family import Contrast, correct
from r2v_core.results.frontier import (
    Curve,
    area,
    area_flips,
    area_table,
    compare_areas,
    cost_area,
    frontier,
    success_at,
)
from r2v_core.trajectory import Episode
from tests.results.sweeps import swept

Make = Callable[..., list[Episode]]
ANALYSIS = Analysis(cvar_alpha=0.2, bootstrap=200, confidence=0.95)


def test_area_by_hand() -> None:
    calls, success = np.array([[1.0], [0.0], [0.5]]), np.array([[1.0], [0.4], [0.8]])
    assert area(calls, success)[0] == pytest.approx(0.5 * 0.6 + 0.5 * 0.9)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_area_is_a_mean_success(points: list[tuple[float, float]]) -> None:
    calls = np.array([[0.0], *[[x] for x, _ in points], [1.0]])
    success = np.array([[0.3], *[[y] for _, y in points], [0.9]])
    found = area(calls, success)[0]
    assert success.min() - 1e-9 <= found <= success.max() + 1e-9
    assert found == pytest.approx(
        np.trapezoid(success[np.argsort(calls[:, 0], kind="stable"), 0], np.sort(calls[:, 0]))
    )


def frontier_areas(tables: Frames, analysis: Analysis) -> pd.DataFrame:
    """The areas, corrected as a family of their own."""
    rows, contrasts = compare_areas(tables, analysis)
    correct(contrasts)
    return area_table(rows)


def test_points_are_sorted_and_carry_intervals(make_episodes: Make) -> None:
    table = frontier(swept(make_episodes, 0.3), ANALYSIS)
    assert table["method"].tolist() == [
        "r2v@0.2", "r2v@0.5", "slm_only", "llm_only", "random_router@0.2", "random_router@0.5",
    ]  # fmt: skip
    row = table.set_index("method").loc["r2v@0.2"]
    assert row["llm_call_rate"] == pytest.approx(0.2) and row["success_rate"] == pytest.approx(0.5)
    assert row["success_rate_ci"].startswith("[") and row["n_episodes"] == 48


def test_a_better_rule_has_the_larger_area_and_equal_ones_are_not_told_apart(make_episodes: Make) -> None:
    table = frontier_areas(swept(make_episodes, 0.3), ANALYSIS).set_index("rule")
    assert table.loc["r2v", "area"] > table.loc["random_router", "area"]
    assert table.loc["random_router", "difference"] > 0 and table.loc["random_router", "verdict"] == "better"
    assert table.loc["r2v", "cost_area"] > table.loc["random_router", "cost_area"]
    assert table.loc["random_router", "cost_area_verdict"] == "better"
    assert table.loc["random_router", "n_tasks"] == 12 and table.loc["r2v", "n_points"] == 4
    same = frontier_areas(swept(make_episodes, 0.0), ANALYSIS).set_index("rule")
    assert same.loc["random_router", "difference"] == 0 and same.loc["random_router", "verdict"] == "not shown"


def test_differences_of_areas_are_one_family(make_episodes: Make) -> None:
    table = frontier_areas(swept(make_episodes, 0.3), ANALYSIS).set_index("rule")
    raw = table.loc["random_router", ["p", "cost_area_p"]].to_numpy(dtype=float)
    corrected = table.loc["random_router", ["p_holm", "cost_area_p_holm"]].to_numpy(dtype=float)
    assert corrected == pytest.approx(holm(raw)) and (raw > 0).all() and corrected.max() >= 2 * raw.min()
    assert table.loc["r2v", ["p", "p_holm", "verdict"]].isna().all()  # it is what the others are compared with


def curve(success: np.ndarray, cost: np.ndarray) -> Curve:
    """A point a row: success and cost of each template, one episode each; the ends first."""
    made = {}
    for i, name in enumerate(["slm_only", "llm_only", "0.2", "0.5", "0.8"][: len(cost)]):
        one, spent = tally_of(success[i][:, None], 1), cost[i][:, None]
        sums = one.sums | {"cost": spent, "teacher_calls": (spent - 10) / 20, "n_steps": np.full(spent.shape, 10.0)}
        made[name] = {1: replace(one, sums=sums)}
    return made


def played(generator: np.random.Generator, templates: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Two rules of equal chances at three points; shape (rule, point, template)."""
    difficulty = generator.beta(2, 2, templates)
    ends = [generator.random(templates) < rate for rate in (0.5 * difficulty, 0.5 + 0.5 * difficulty)]
    spent = [np.full(templates, 10.0), np.full(templates, 210.0)]
    rules = []
    for _ in range(2):
        points = [generator.random(templates) < 0.25 * k + 0.5 * difficulty for k in (0.5, 1, 1.5)]
        cost = [generator.uniform(60 * k, 60 * k + 40, templates) for k in (0.5, 1, 1.5)]
        rules.append(([*ends, *points], [*spent, *cost]))
    return tuple(np.array([rule[i] for rule in rules], dtype=float) for i in range(2))


def test_areas_are_tested_by_swapping_the_rules_on_whole_templates() -> None:
    success, cost = played(np.random.default_rng(1), templates=5)
    first, second = (curve(*rule) for rule in zip(success, cost, strict=True))
    apart = []
    for swaps in itertools.product((0, 1), repeat=5):
        areas = []
        for rule in (0, 1):
            own = np.array(swaps) == rule
            won, spent = (np.where(own, table[0], table[1]).mean(axis=1) for table in (success, cost))
            areas.append(cost_area(spent[:, None], won[:, None], (0, 1))[0])
        apart.append(areas[0] - areas[1])
    expected = np.mean(np.abs(apart) >= abs(apart[0]) - 1e-9)
    assert area_flips(first, second)["cost_area"] == expected and 0.1 < expected < 1
    fewer = curve(success[1][:4], cost[1][:4])
    assert np.isnan(list(area_flips(first, fewer).values())).all()  # not swept at the same shares


def test_areas_of_equal_rules_differ_as_seldom_as_is_said() -> None:
    generator = np.random.default_rng(5)
    rejected = [
        area_flips(*(curve(*rule) for rule in zip(*played(generator, 9), strict=True)))["cost_area"] <= 0.05
        for _ in range(300)
    ]
    assert 0.02 < np.mean(rejected) < 0.08


def test_methods_and_areas_are_one_family(make_episodes: Make) -> None:
    tables = swept(make_episodes, 0.3)
    methods = compare_methods(tables, ANALYSIS, reference="llm_only")
    rows, areas = compare_areas(tables, ANALYSIS)
    family = [*methods, *areas, Contrast({}, Estimate(0.1, 0.05, 0.2), np.nan, "p_holm", "verdict")]
    correct(family)
    corrected = [one.row[one.corrected] for one in family]
    assert len(methods) == 5 and len(areas) == 2
    assert corrected[:-1] == pytest.approx(multipletests([one.p for one in family[:-1]], method="holm")[1].tolist())
    assert np.isnan(corrected[-1]) and family[-1].row["verdict"] == "not shown"
    assert area_table(rows)["cost_area_p_holm"].max() == areas[1].row["cost_area_p_holm"]


def test_without_a_sweep_there_is_nothing(make_episodes: Make) -> None:
    tables = frames(make_episodes(conditions=("noisy",), methods=("r2v", "slm_only", "llm_only"), tasks=2, zs=2))
    assert frontier_areas(tables, ANALYSIS).empty
    assert set(frontier(tables, ANALYSIS)["method"]) == {"slm_only", "llm_only"}


def test_success_at_a_cost_by_hand() -> None:
    """As above; the point dearer than the teacher alone counts as the teacher alone."""
    cost, success = np.array([[10.0], [110.0], [60.0], [150.0]]), np.array([[0.2], [1.0], [0.8], [0.9]])
    at = [success_at(cost, success, (0, 1), place)[0] for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert at == pytest.approx([0.2, 0.5, 0.8, 0.9, 1.0])
    assert np.isnan(success_at(np.array([[10.0], [10.0]]), success[:2], (0, 1), 0.5)[0])


@given(st.lists(st.tuples(st.floats(0, 120), st.floats(0, 1)), max_size=6), st.floats(0, 1))
def test_success_at_a_cost_is_numpys_interpolation(points: list[tuple[float, float]], place: float) -> None:
    ends = [(0.0, 0.3), (100.0, 0.9)]
    x, y = np.array([*ends, *points]).T
    inside = [(a, b) for a, b in points if 0 < a < 100]
    xs, ys = np.array(sorted([*ends, *inside], key=lambda point: point[0])).T
    if len(set(xs / 100)) == len(xs):  # not rounded onto each other, where either success would do
        found = success_at(x[:, None], y[:, None], (0, 1), place)[0]
        assert found == pytest.approx(np.interp(place, xs / 100, ys), abs=1e-9)


def test_rules_are_compared_at_the_cost_that_r2v_came_to(make_episodes: Make) -> None:
    tables = swept(make_episodes, 0.3)
    own = [table[table["method"] == "r2v@0.2"].assign(method="r2v") for table in tables]
    both = Frames(*(pd.concat(pair, ignore_index=True) for pair in zip(tables, own, strict=True)))
    table = frontier_areas(both, ANALYSIS).set_index("rule")
    cost = own[0]["cost"].mean()
    assert (table["equal_cost"] == cost).all()
    points = frontier(tables, ANALYSIS).set_index("method")
    assert table.loc["r2v", "equal_cost_success"] == pytest.approx(points.loc["r2v@0.2", "success_rate"])
    line = points.loc[["slm_only", "random_router@0.2", "random_router@0.5", "llm_only"]].sort_values("avg_cost")
    other = np.interp(cost, line["avg_cost"], line["success_rate"])
    assert table.loc["random_router", "equal_cost_success"] == pytest.approx(other)
    assert table.loc["random_router", "equal_cost_verdict"] == "better"
    assert table.loc["random_router", "equal_cost_p_holm"] >= table.loc["random_router", "equal_cost_p"] > 0
    assert frontier_areas(tables, ANALYSIS)["equal_cost"].isna().all(), "r2v was swept, its own threshold not played"


def test_the_area_over_cost_by_hand() -> None:
    """The small model alone, the teacher alone, half way, and one that costs more than the teacher alone."""
    cost, success = np.array([[10.0], [110.0], [60.0], [150.0]]), np.array([[0.2], [1.0], [0.8], [0.9]])
    assert cost_area(cost, success, (0, 1))[0] == pytest.approx(0.5 * (0.2 + 0.8) / 2 + 0.5 * (0.8 + 1.0) / 2)
    assert cost_area(cost[:2], success[:2], (0, 1))[0] == pytest.approx(0.6)
    assert np.isnan(cost_area(np.array([[10.0], [10.0]]), success[:2], (0, 1))[0])
