"""Areas over cost at other prices of a teacher step: what was played, priced anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from r2v_core.evaluation.frame import Frames, frames
from r2v_core.results.bundles import Analysis
from r2v_core.results.cost_ratios import COST_RATIO_COLUMNS, RATIOS, cost_ratios
from r2v_core.results.frontier import area_table, compare_areas
from r2v_core.results.success_figures import cost_ratio_curves
from r2v_core.trajectory import Episode
from tests.results.reports import write_report
from tests.results.sweeps import swept

Make = Callable[..., list[Episode]]
ANALYSIS = Analysis(cvar_alpha=0.2, bootstrap=100, confidence=0.95)
SMALL, TEACHER = 1.0, 50.0


@pytest.fixture(scope="module")
def tables(make_episodes: Make) -> Frames:
    """Two swept rules; the small model's steps cost 1, and 50 more where the teacher plays instead of it."""
    found = swept(make_episodes, 0.3)
    proposed = found.episodes["method"] != "llm_only"
    steps, calls = found.episodes["n_steps"], found.episodes["teacher_calls"]
    return found._replace(episodes=found.episodes.assign(cost=SMALL * steps * proposed + TEACHER * calls))


def areas(tables: Frames) -> pd.DataFrame:
    return area_table(compare_areas(tables, ANALYSIS)[0]).set_index("rule")


@pytest.mark.parametrize("ratio", [5.0, TEACHER, 200.0])
def test_a_ratio_gives_what_episodes_at_that_price_would(tables: Frames, ratio: float) -> None:
    """Areas, their differences and all intervals are those of a run whose teacher had that price."""
    priced = tables.episodes["cost"] + (ratio - TEACHER) * SMALL * tables.episodes["teacher_calls"]
    expected = areas(tables._replace(episodes=tables.episodes.assign(cost=priced)))
    found = cost_ratios(tables, ANALYSIS)
    rows = found[found["ratio"] == ratio].set_index("rule")
    assert list(rows.index) == ["r2v", "random_router"]
    assert rows["cost_area"].to_dict() == pytest.approx(expected["cost_area"].to_dict())
    assert rows["cost_area_ci"].to_dict() == expected["cost_area_ci"].to_dict()
    other, same = rows.loc["random_router"], expected.loc["random_router"]
    assert other["difference"] == pytest.approx(same["cost_area_difference"]) and other["difference"] > 0
    assert other["difference_ci"] == same["cost_area_difference_ci"] != ""
    assert np.isnan(rows.loc["r2v", "difference"]) and rows.loc["r2v", "difference_ci"] == ""


def test_the_ratio_that_was_played_is_marked_and_always_there(tables: Frames) -> None:
    found = cost_ratios(tables, ANALYSIS)
    assert list(found.columns) == COST_RATIO_COLUMNS, "a sensitivity analysis has no verdicts"
    assert sorted(set(found["ratio"])) == list(RATIOS)
    assert set(found.loc[found["as_played"], "ratio"]) == {TEACHER}
    with_candidates = tables.episodes["cost"] + 1.5 * tables.episodes["n_steps"] * (
        tables.episodes["method"] != "llm_only"
    )
    dearer = tables._replace(episodes=tables.episodes.assign(cost=with_candidates))  # 2.5 a step of the small model
    found = cost_ratios(dearer, ANALYSIS)
    played = found[found["as_played"]].set_index("rule")
    assert set(played["ratio"]) == {20.0}
    assert played["cost_area"].to_dict() == pytest.approx(areas(dearer)["cost_area"].to_dict())


def test_without_a_sweep_there_is_nothing(make_episodes: Make, tables: Frames) -> None:
    alone = frames(make_episodes(conditions=("noisy",), methods=("r2v", "slm_only", "llm_only"), tasks=2, zs=2))
    found = cost_ratios(alone, ANALYSIS)
    assert found.empty and list(found.columns) == COST_RATIO_COLUMNS
    assert cost_ratio_curves(found, "noisy") is None
    for_free = tables._replace(episodes=tables.episodes.assign(cost=TEACHER * tables.episodes["teacher_calls"]))
    assert cost_ratios(for_free, ANALYSIS).empty  # no multiple of a step that costs nothing


def test_the_figure_draws_areas_and_leads(tables: Frames) -> None:
    table = cost_ratios(tables, ANALYSIS)
    figure = cost_ratio_curves(table, "noisy")
    assert figure is not None
    left, right = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    for rule, rows in table.groupby("rule"):
        assert drawn[rule] == pytest.approx(rows["cost_area"].tolist())
    (leads,) = right.containers
    other = table[table["rule"] == "random_router"]
    assert leads.lines[0].get_ydata() == pytest.approx(other["difference"].tolist())
    segments = leads.lines[2][0].get_segments()
    low_high = [f"[{segment[0, 1]:.3f}, {segment[1, 1]:.3f}]" for segment in segments]
    assert low_high == other["difference_ci"].tolist()


def test_the_report_shows_them_beside_the_frontier(traces: list[Episode], tmp_path: Path) -> None:
    methods = ("r2v", "r2v@0.2", "slm_only", "llm_only")
    few = [e for e in traces if e.seed == 1 and e.perturbation_seed is not None and e.metadata["method"] in methods]
    page = write_report(few, tmp_path).read_text(encoding="utf-8")
    start = page.index('id="areas"')
    section = page[start : page.index("</section>", start)]
    assert "Areas over cost at other cost ratios" in section and "without tests and verdicts" in section
    for ratio in RATIOS:
        assert f'<th scope="col">1 : {ratio:g}</th>' in section
    unswept = [episode for episode in few if "@" not in episode.metadata["method"]]
    assert 'id="cost-ratios"' not in write_report(unswept, tmp_path / "unswept").read_text(encoding="utf-8")
