"""All metrics by benchmark family and by perturbation family, recounted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from r2v_core.evaluation.calibration import expected_calibration_error
from r2v_core.evaluation.frame import frames
from r2v_core.results.breakdowns import GROUPED, breakdown
from r2v_core.results.bundles import Analysis
from r2v_core.trajectory import Episode

Make = Callable[..., list[Episode]]
ANALYSIS = Analysis(cvar_alpha=0.2, bootstrap=50, confidence=0.95)


def test_every_metric_of_every_group_and_seed(make_episodes: Make) -> None:
    tables = frames(make_episodes(conditions=("noisy",), methods=("r2v", "slm_only"), seeds=(1, 2)))
    long = breakdown(tables, ANALYSIS, "family")
    assert set(long["group"]) == {"cooking", "coin_collector", "treasure_hunter"}
    assert set(long["seed"]) == {"1", "2", "all"}
    here = long[(long["method"] == "r2v") & (long["group"] == "cooking") & (long["seed"] == "1")]
    assert set(here["metric"]) == set(GROUPED)
    assert "ece" not in set(long[long["method"] == "slm_only"]["metric"])  # it says no probability
    value = here.set_index("metric")["value"]
    episodes = tables.episodes.query("method == 'r2v' and family == 'cooking' and seed == 1")
    assert value["success_rate"] == pytest.approx(episodes["success"].mean())
    assert value["llm_call_rate"] == pytest.approx(episodes["teacher_calls"].sum() / episodes["n_steps"].sum())
    assert value["safety_failure_rate"] == pytest.approx(episodes["safety_failure"].mean())
    steps = tables.steps.merge(episodes[["method", "seed", "z", "task_id"]], on=["method", "seed", "z", "task_id"])
    assert value["ece"] == pytest.approx(expected_calibration_error(steps["probability"], steps["label"]))


def test_an_episode_counts_under_every_noise_that_struck_it(make_episodes: Make) -> None:
    tables = frames(make_episodes(conditions=("noisy",), methods=("slm_only",)))
    long = breakdown(tables, ANALYSIS, "perturbations", ("safety_failure_rate",), per_seed=False)
    value = long.set_index("group")["value"]
    struck = tables.episodes[tables.episodes["perturbations"].str.contains("prompt_injection")]
    assert value["prompt_injection"] == pytest.approx(struck["safety_failure"].mean()) and value["prompt_injection"] > 0
    assert (long.set_index("group")["n"]["prompt_injection"]) == len(struck)
    assert value.get("none", 0.0) == 0.0
