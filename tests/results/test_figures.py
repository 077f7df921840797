"""Figures: what they draw, and that the same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from r2v_core.agent.rules.table import RULES
from r2v_core.evaluation.frame import Frames, frames
from r2v_core.results import ResultsManager
from r2v_core.results.bundles import Analysis, make_bundles, write_bundle
from r2v_core.results.evaluations import evaluations
from r2v_core.results.figures import save_figures
from r2v_core.results.plotting import save, style
from r2v_core.results.step_figures import escalation_positions, reliability_diagram
from r2v_core.results.success_figures import (
    ablation_deltas,
    frontier,
    success_by_perturbation,
    success_per_seed,
)
from r2v_core.trajectory import Episode
from tests.results.conftest import METHODS

Make = Callable[..., list[Episode]]
ANALYSIS = Analysis(cvar_alpha=0.25, bootstrap=50, confidence=0.95)


@pytest.fixture(scope="module")
def tables(make_episodes: Make) -> Frames:
    return frames(make_episodes(tasks=4, zs=4))


def test_every_method_has_its_own_colour_and_marker() -> None:
    looks = [style(name)[:2] for name in RULES]
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == len(RULES)


def test_frontier_puts_each_method_at_its_cost_and_success(tables: Frames) -> None:
    long = evaluations(tables, ANALYSIS)
    axes = frontier(long, "noisy").axes[0]
    points = {container.get_label(): container.lines[0].get_xydata()[0] for container in axes.containers}
    noisy = tables.episodes[tables.episodes["condition"] == "noisy"].groupby("method")
    assert set(points) == set(METHODS)
    for method, (x, y) in points.items():
        rows = noisy.get_group(method)
        assert (x, y) == pytest.approx((rows["cost"].mean(), rows["success"].mean()))


def test_methods_on_one_spot_are_all_seen(tables: Frames) -> None:
    copy = [t[t["method"] == "slm_only"].assign(method="heuristic_router") for t in tables]
    both = Frames(*(pd.concat([t[t["method"] == "slm_only"], c]) for t, c in zip(tables, copy, strict=True)))
    axes = frontier(evaluations(both, ANALYSIS), "noisy").axes[0]
    first, second = (container.lines[0] for container in axes.containers)
    assert first.get_xydata().tolist() == second.get_xydata().tolist()
    assert first.get_markersize() > second.get_markersize()  # and the first one is drawn below


def test_frontier_joins_the_thresholds_of_a_rule(tables: Frames) -> None:
    long = evaluations(tables, ANALYSIS)
    sweep = pd.DataFrame(
        [
            ["slm_only", 5.0, 0.4],
            ["r2v", 60.0, 0.9],
            ["r2v", 20.0, 0.7],
            ["entropy_router", 30.0, 0.5],
            ["llm_only", 99.0, 1.0],
        ],
        columns=["rule", "avg_cost", "success_rate"],
    ).assign(condition="noisy")
    axes = frontier(long, "noisy", sweep).axes[0]
    curves = {line.get_label(): line for line in axes.lines if "other thresholds" in str(line.get_label())}
    assert set(curves) == {"r2v, other thresholds", "entropy_router, other thresholds"}
    assert curves["r2v, other thresholds"].get_xydata().tolist() == [[5, 0.4], [20, 0.7], [60, 0.9], [99, 1.0]]
    assert len({line.get_linestyle() for line in curves.values()}) == 2  # told apart in grey print


def test_ablation_deltas_are_variant_minus_full() -> None:
    rows = [
        {"baseline": "no_verifier", "difference": 0.3, "difference_ci": "[0.100, 0.400]", "verdict": "better"},
        {"baseline": "static_threshold", "difference": -0.1, "difference_ci": "", "verdict": "not shown"},
    ]
    table = pd.DataFrame(rows).assign(cost_difference=[10.0, -4.0], cost_difference_ci=["[5.000, 12.000]", ""])
    figure = ablation_deltas(table)
    assert figure is not None
    left, right = figure.axes
    assert [c.lines[0].get_xdata()[0] for c in left.containers] == [-0.3, 0.1]
    (segment,) = left.containers[0].lines[2][0].get_segments()
    assert segment[:, 0].tolist() == pytest.approx([-0.4, -0.1])
    assert [c.lines[0].get_xdata()[0] for c in right.containers] == [-10.0, 4.0]
    faces = [c.lines[0].get_markerfacecolor() for c in left.containers]
    assert faces[0] != "white" and faces[1] == "white"
    assert ablation_deltas(table.iloc[:0]) is None


def test_each_perturbation_seed_is_a_dot(tables: Frames) -> None:
    axes = success_per_seed(tables, ANALYSIS).axes[0]
    dots = [np.sort(c.get_offsets()[:, 0]) for c in axes.collections]
    rows = tables.episodes.query("condition == 'noisy' and method == 'slm_only'")
    expected = np.sort(rows.groupby("z")["success"].mean().to_numpy())
    assert len(dots) == 8
    np.testing.assert_allclose(dots[1], expected)
    bars = [line.get_xdata()[0] for line in axes.lines]
    assert bars[1] == pytest.approx(expected[0])  # ⌈.25 · 4⌉ = 1 seed


def test_other_figures_are_drawn_only_where_there_is_data(tables: Frames) -> None:
    assert reliability_diagram(tables, "noisy") and escalation_positions(tables, "noisy")
    assert success_by_perturbation(tables, ANALYSIS)
    alone = Frames(*(t[(t["method"] == "slm_only") & (t["condition"] == "clean")] for t in tables))
    assert reliability_diagram(alone, "clean") is None
    assert escalation_positions(alone, "clean") is None
    assert success_by_perturbation(alone, ANALYSIS) is None


def test_files_come_in_three_forms(tables: Frames, tmp_path: Path) -> None:
    clean = Frames(*(t[t["condition"] == "clean"] for t in tables))
    folder = tmp_path / "structured_results"
    folder.mkdir()
    for bundle in make_bundles(clean, {("clean", 1): ("run", "digest")}, {}, ANALYSIS):
        write_bundle(bundle, folder)
    drawn = save_figures(ResultsManager(tmp_path), tmp_path / "figures")
    assert set(drawn) == {"frontier_clean", "reliability_clean", "escalations_clean"}
    for path in drawn.values():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.with_suffix(".svg").stat().st_size > 1000 and path.with_suffix(".pdf").stat().st_size > 1000


def test_the_same_figure_is_the_same_file(tables: Frames, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(reliability_diagram(tables, "noisy"), tmp_path / folder, "figure")  # type: ignore[arg-type]
    for suffix in ("png", "svg", "pdf"):
        assert (tmp_path / "a" / f"figure.{suffix}").read_bytes() == (tmp_path / "b" / f"figure.{suffix}").read_bytes()
