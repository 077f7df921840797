"""Figures of single steps: what the risk score is worth, and where in an episode the teacher plays."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from r2v_core.evaluation.calibration import expected_calibration_error, reliability_table
from r2v_core.evaluation.frame import Frames
from r2v_core.results.naming import method_rank
from r2v_core.results.plotting import marker_of, methods_of, new_figure, percent, style


def reliability_diagram(frames: Frames, condition: str, methods: tuple[str, ...] = ("r2v",)) -> Figure | None:
    """Observed failure against predicted risk, with the number of steps in each bin; None without labelled steps."""
    steps = frames.steps[(frames.steps["condition"] == condition) & frames.steps["method"].isin(methods)]
    steps = steps[steps["probability"].notna() & steps["label"].notna()]
    if steps.empty:
        return None
    with new_figure(5.4, 5.2, rows=2) as (figure, grid):
        axes, below = grid[:, 0]
        grid[0, 0].get_gridspec().set_height_ratios([3, 1])
        axes.plot([0, 1], [0, 1], color="#777777", ls="--", lw=1, label="perfectly calibrated")
        for method in methods_of(steps):
            part = steps[steps["method"] == method]
            table = reliability_table(part["probability"], part["label"])
            ece = expected_calibration_error(part["probability"], part["label"])
            filled = table[table["n"] > 0]
            label = f"{method} (ECE {ece:.3f})"
            axes.plot(filled["probability"], filled["observed"], lw=1.5, label=label, **marker_of(method))
            below.stairs(table["n"], [*table["low"], 1.0], fill=True, alpha=0.6, color=style(method)[0])
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("Small model's action fails")
        axes.set_title(f"Reliability of the risk score, {condition}")
        axes.legend(loc="upper left")
        below.set_ylabel("Steps")
        below.set_xlabel("Predicted probability of failure")
        for each in (axes, below):
            each.set_xlim(-0.03, 1.03)
            percent(each, "x")
        percent(axes)
    return figure


def escalation_positions(frames: Frames, condition: str) -> Figure | None:
    """Where in the episode the teacher plays: share of steps by step number; None if no method mixes the two."""
    steps = frames.steps[frames.steps["condition"] == condition]
    shares = steps.groupby("method")["teacher"].mean()
    mixed = sorted(shares[(shares > 0) & (shares < 1)].index, key=method_rank)
    if not mixed:
        return None
    table = steps.pivot_table(index="method", columns="index", values="teacher", aggfunc="mean", observed=True)
    table = table.reindex(index=mixed, columns=range(int(steps["index"].max()) + 1))
    reached = steps[steps["method"].isin(mixed)].groupby("index").size().reindex(table.columns, fill_value=0)
    with new_figure(7.6, 1.9 + 0.42 * len(mixed), rows=2) as (figure, grid):
        axes, below = grid[:, 0]
        axes.get_gridspec().set_height_ratios([len(mixed), 1.6])
        edges = np.arange(len(table.columns) + 1) + 0.5
        image = axes.pcolormesh(
            edges, np.arange(len(mixed) + 1) - 0.5, table.to_numpy(dtype=float), cmap="cividis", vmin=0, vmax=1
        )
        axes.set_yticks(range(len(mixed)), mixed)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(labelbottom=False)
        axes.set_title(f"Where in the episode the teacher plays, {condition}")
        bar = figure.colorbar(image, ax=axes, label="Steps played\nby the teacher")
        bar.ax.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
        below.stairs(reached.to_numpy() / len(mixed), edges, fill=True, color="#999999")
        below.set_ylabel("Episodes")
        below.set_xlabel("Step of the episode (blank: no episode got that far)")
        below.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        for each in (axes, below):
            each.set_xlim(edges[0], edges[-1])
    return figure
