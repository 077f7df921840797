"""All figures of an experiment, drawn and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from r2v_core.results.plotting import save
from r2v_core.results.step_figures import escalation_positions, reliability_diagram
from r2v_core.results.success_figures import (
    ablation_deltas,
    cost_ratio_curves,
    frontier,
    success_by_perturbation,
    success_per_seed,
)

if TYPE_CHECKING:
    from r2v_core.results.manager import ResultsManager


def save_figures(results: ResultsManager, folder: Path) -> dict[str, Path]:
    """Draw and write every figure that the data allows.

    Returns:
        Name → path of the PNG; SVG and PDF lie beside it.
    """
    frames, analysis = results.frames, results.analysis
    conditions = sorted(frames.episodes["condition"].unique())
    drawn: dict[str, Figure | None] = {}
    for condition in conditions:
        drawn[f"frontier_{condition}"] = frontier(results.evaluations, condition, results.frontier)
        drawn[f"cost_ratios_{condition}"] = cost_ratio_curves(results.cost_ratios, condition)
    if "noisy" in conditions:
        drawn["success_per_seed"] = success_per_seed(frames, analysis)
        drawn["success_by_perturbation"] = success_by_perturbation(frames, analysis)
    for condition in conditions:
        drawn[f"reliability_{condition}"] = reliability_diagram(frames, condition)
        drawn[f"escalations_{condition}"] = escalation_positions(frames, condition)
    drawn["ablation_deltas"] = ablation_deltas(results.ablations)
    return {name: save(figure, folder, name) for name, figure in drawn.items() if figure is not None}
