"""The report's answer is one sentence of the tables' own numbers and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from r2v_core.evaluation.frame import frames
from r2v_core.results.answer import answer
from r2v_core.results.bundles import Analysis
from r2v_core.results.evaluations import evaluations
from r2v_core.trajectory import Episode

Make = Callable[..., list[Episode]]
ANALYSIS = Analysis(cvar_alpha=0.2, bootstrap=50, confidence=0.95)


@pytest.fixture(scope="module")
def long(make_episodes: Make) -> pd.DataFrame:
    return evaluations(frames(make_episodes(methods=("r2v", "slm_only", "llm_only"), tasks=3, zs=2)), ANALYSIS)


def against(baseline: str, verdict: str, condition: str = "noisy") -> dict[str, Any]:
    interval = "[-0.100, 0.300]"
    return {
        "baseline": baseline,
        "condition": condition,
        "difference": 0.1,
        "difference_ci": interval,
        "verdict": verdict,
    }


def curve(rule: str, at_cost: str | None, by_area: str | None, condition: str = "noisy") -> dict[str, Any]:
    row: dict[str, Any] = {"rule": rule, "condition": condition}
    for name, verdict in (("equal_cost", at_cost), ("cost_area", by_area)):
        row |= {f"{name}_difference": 0.05, f"{name}_difference_ci": "[0.010, 0.090]", f"{name}_verdict": verdict}
    return row


def test_it_is_one_sentence_that_says_what_is_not_shown(long: pd.DataFrame) -> None:
    compared = [against("slm_only", "better"), against("llm_only", "not shown"), against("slm_only", "worse", "clean")]
    areas = [
        curve("r2v", None, None),
        curve("entropy_router", "better", "not shown"),
        curve("verifier_router", "not shown", "worse"),
        curve("logprob_router", "worse", "worse", "clean"),
    ]
    text = answer(long, compared, areas)
    rows = long[(long["method"] == "r2v") & (long["condition"] == "noisy")].set_index("metric")
    assert text.startswith(f"Under noise, r2v solves {rows.loc['success_rate', 'value']:.1%} [")
    assert f"{rows.loc['cost_vs_llm_only', 'value']:.1%} [" in text and "of the teacher's cost" in text
    assert "more than the small model alone (+10.0% [-0.100, 0.300])" in text
    assert "a difference from the teacher alone is not shown (+10.0%" in text
    assert (
        "at the same cost its success is larger than that of entropy_router (+0.050 [0.010, 0.090]), "
        "not shown to differ from that of verifier_router" in text
    )
    assert (
        "its area of success over cost is smaller than that of verifier_router (+0.050 [0.010, 0.090]), "
        "not shown to differ from that of entropy_router" in text
    )
    assert "logprob_router" not in text and "less than" not in text  # of the other condition
    assert text.endswith(".") and ". " not in text


def test_without_a_sweep_equal_cost_is_not_shown(long: pd.DataFrame) -> None:
    text = answer(long, [], [])
    assert text.count("not shown (no thresholds were swept)") == 2


def test_of_clean_episodes_it_says_so_and_without_r2v_nothing(long: pd.DataFrame) -> None:
    assert answer(long[long["condition"] == "clean"], [], []).startswith("Without noise, r2v solves ")
    assert answer(long[long["method"] != "r2v"], [], []) == "Under noise, r2v was not played: not shown."
