"""Metrics against worked examples and their defining properties."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.errors import R2VError
from r2v_core.evaluation.frame import EPISODE_COLUMNS, STEP_COLUMNS
from r2v_core.evaluation.metrics import (
    bottom_share,
    cvar_failure,
    metric_functions,
    tally,
    worst_count,
    worst_seed,
)

RATES = st.lists(st.floats(0, 1), min_size=1, max_size=30)
ALPHAS = st.floats(0.01, 1.0)


def test_cvar_by_hand() -> None:
    rates = [1.0, 0.9, 0.8, 0.5, 0.2]
    assert cvar_failure(rates, 0.2) == pytest.approx(0.8)  # ⌈0.2 · 5⌉ = 1 seed
    assert cvar_failure(rates, 0.4) == pytest.approx((0.8 + 0.5) / 2)
    assert cvar_failure(rates, 0.21) == pytest.approx((0.8 + 0.5) / 2)  # the ceiling
    assert worst_seed(rates) == 0.2
    assert bottom_share(rates, 0.1) == pytest.approx(0.2)


def test_the_tail_is_not_widened_by_floating_point() -> None:
    assert worst_count(100, 0.07) == 7 and 0.07 * 100 > 7
    assert [worst_count(n, 0.2) for n in (1, 5, 6, 20)] == [1, 1, 2, 4]


def test_cvar_works_along_the_last_axis() -> None:
    rates = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert cvar_failure(rates, 0.5).tolist() == [1.0, 0.5]


@given(RATES, ALPHAS)
def test_cvar_lies_between_mean_and_worst(rates: list[float], alpha: float) -> None:
    failures = 1 - np.array(rates)
    assert failures.mean() - 1e-12 <= cvar_failure(rates, alpha) <= failures.max() + 1e-12


@given(RATES)
def test_cvar_of_everything_is_the_mean(rates: list[float]) -> None:
    assert cvar_failure(rates, 1.0) == pytest.approx(1 - np.mean(rates))


@given(RATES, ALPHAS, ALPHAS)
def test_cvar_falls_as_the_tail_widens(rates: list[float], one: float, other: float) -> None:
    assert cvar_failure(rates, min(one, other)) >= cvar_failure(rates, max(one, other)) - 1e-12


@given(RATES, ALPHAS, st.randoms())
def test_cvar_ignores_the_order_of_seeds(rates: list[float], alpha: float, random: object) -> None:
    shuffled = rates.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert cvar_failure(shuffled, alpha) == pytest.approx(float(cvar_failure(rates, alpha)))


@pytest.mark.parametrize("alpha", [0.0, 1.2])
def test_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(R2VError, match="alpha"):
        cvar_failure([0.5], alpha)


def test_no_seeds_are_refused() -> None:
    with pytest.raises(R2VError, match="at least one seed"):
        cvar_failure([], 0.2)


def episodes_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    blank = dict.fromkeys(EPISODE_COLUMNS, 0)
    return pd.DataFrame([blank | {"method": "r2v"} | row for row in rows], columns=list(EPISODE_COLUMNS))


def steps_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    blank = dict.fromkeys(STEP_COLUMNS, 0)
    return pd.DataFrame([blank | {"method": "r2v"} | row for row in rows], columns=list(STEP_COLUMNS))


def test_metrics_from_a_tally_by_hand() -> None:
    episodes = episodes_table(
        [
            {"task_id": "a", "z": 1, "success": True, "n_steps": 4, "teacher_calls": 1, "cost": 53, "latency": 2.0},
            {"task_id": "a", "z": 2, "success": False, "n_steps": 6, "teacher_calls": 0, "cost": 6, "latency": 4.0},
            {"task_id": "b", "z": 1, "success": True, "n_steps": 2, "teacher_calls": 2, "cost": 100, "latency": 1.0},
            {"task_id": "b", "z": 2, "success": True, "n_steps": 8, "teacher_calls": 2, "cost": 106, "latency": 5.0},
        ]
    )
    steps = steps_table(
        [
            {"task_id": "a", "z": 1, "probability": 0.1, "label": 0.0},
            {"task_id": "a", "z": 2, "probability": 0.9, "label": 1.0},
            {"task_id": "b", "z": 1, "probability": 0.85, "label": 0.0},
            {"task_id": "b", "z": 1, "probability": float("nan"), "label": 1.0},
            {"task_id": "b", "z": 2, "probability": 0.5, "label": float("nan")},
        ]
    )
    found = tally(episodes, steps)
    metrics, once = metric_functions(0.2), np.ones((1, 2))
    values = {name: float(metric.compute(found, once, None)[0]) for name, metric in metrics.items()}
    drawn_once = {name: float(metric.compute(found, once, once)[0]) for name, metric in metrics.items()}
    assert values == pytest.approx(drawn_once)
    assert values["success_rate"] == 0.75
    assert values["worst_seed_sr"] == 0.5 and values["cvar_failure"] == 0.5 and values["bottom_10_sr"] == 0.5
    assert values["llm_call_rate"] == 5 / 20
    assert values["avg_cost"] == 265 / 4 and values["avg_latency"] == 3.0 and values["avg_steps"] == 5.0
    assert values["brier"] == pytest.approx((0.01 + 0.01 + 0.85**2) / 3)
    # bins (0, .1], (.8, .9]: |0 − .1| · 1/3 + |1/2 − .875| · 2/3
    assert values["ece"] == pytest.approx((0.1 + 2 * 0.375) / 3)
    assert found.n_labelled == 3


def test_weights_are_how_often_a_task_was_drawn() -> None:
    rows = [{"task_id": task, "z": 1, "success": task == "a"} for task in "ab"]
    found = tally(episodes_table(rows), steps_table([]))
    success = metric_functions(0.2)["success_rate"].compute(found, np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), None)
    assert success.tolist() == [1.0, 0.5, 0.0]


def test_an_episode_counts_as_often_as_its_task_times_its_world() -> None:
    """Against episodes that are really there as often; one is missing, as where a family of noise did not strike."""
    generator = np.random.default_rng(0)
    rows = [
        {"task_id": task, "z": z, "success": generator.random() < 0.5, "n_steps": int(generator.integers(1, 9))}
        for task in "abc"
        for z in (1, 2, 3, 4)
    ][1:]
    for row in rows:
        row["teacher_calls"] = int(generator.integers(0, row["n_steps"] + 1))
    tasks, worlds = {"a": 2, "b": 0, "c": 1}, {1: 1, 2: 3, 3: 0, 4: 0}
    drawn = [row for row in rows for _ in range(tasks[row["task_id"]] * worlds[row["z"]])]
    found = tally(episodes_table(rows), steps_table([]))
    weights = np.array([[2.0, 0.0, 1.0]]), np.array([[1.0, 3.0, 0.0, 0.0]])
    for name, above, below in (("success_rate", "success", None), ("llm_call_rate", "teacher_calls", "n_steps")):
        expected = sum(row[above] for row in drawn) / sum(row[below] if below else 1 for row in drawn)
        assert metric_functions(0.2)[name].compute(found, *weights)[0] == pytest.approx(expected)


def test_replicates_of_a_clean_task_are_no_worlds() -> None:
    assert tally(episodes_table([{"task_id": "a", "z": 1, "condition": "noisy"}]), steps_table([])).worlds
    assert not tally(episodes_table([{"task_id": "a", "z": 1, "condition": "clean"}]), steps_table([])).worlds


def test_a_score_that_is_no_probability_has_no_calibration() -> None:
    steps = steps_table([{"task_id": "a", "probability": 2.3, "label": 1.0}])
    with pytest.raises(R2VError, match=r"r2v: .*outside \[0, 1\]"):
        tally(episodes_table([{"task_id": "a", "z": 1}]), steps)


def test_no_episodes_are_refused() -> None:
    with pytest.raises(R2VError, match="no episodes"):
        tally(episodes_table([]), steps_table([]))
