"""Figures of an experiment: colour-blind safe (Okabe & Ito 2008), as PNG for screens and SVG and PDF for print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r2v_core.agent.rules.table import RULES
from r2v_core.evaluation.calibration import expected_calibration_error, reliability_table
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import seed_rates, worst_count
from r2v_core.results.bundles import Analysis
from r2v_core.results.frontier import ENDS
from r2v_core.results.tables import make_tallies, method_rank, success_breakdown, summarised_seed

if TYPE_CHECKING:
    from r2v_core.results.manager import ResultsManager

FORMATS = ("png", "svg", "pdf")

_RC = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "r2v",
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
}

_DATELESS = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure and its axes (2-d array), in the house style; no display needed and no global state left behind."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height))
        yield figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure in every format of :data:`FORMATS`; returns the PNG's path. Same figure, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_RC):
        for suffix in FORMATS:
            figure.savefig(folder / f"{name}.{suffix}", metadata=_DATELESS[suffix])
            figure.set_layout_engine("none")  # laid out by now; the other forms keep the places
    return folder / f"{name}.png"


def style(method: str) -> tuple[str, str, str]:
    """Colour, marker and line style of a method; grey for what is no rule (the variants of an ablation)."""
    rule = RULES.get(method)
    return (rule.colour, rule.marker, rule.line) if rule else ("#888888", "h", "-")


def _marker(method: str) -> dict[str, Any]:
    colour, marker, _ = style(method)
    size = {"*": 14, "r2v": 10}.get(marker if marker == "*" else method, 8)
    return {"color": colour, "marker": marker, "markersize": size, "markeredgecolor": "#222222", "markeredgewidth": 0.7}


def _methods(table: pd.DataFrame) -> list[str]:
    return sorted(table["method"].unique(), key=method_rank)


def _percent(axes: Axes, axis: str = "y") -> None:
    which = axes.yaxis if axis == "y" else axes.xaxis
    which.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))


def _legend_right(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")


def frontier(long: pd.DataFrame, condition: str, sweep: pd.DataFrame | None = None) -> Figure:
    """Success against cost: a point a method with intervals both ways, a line a rule whose threshold was swept.

    Args:
        long: the evaluations table.
        condition: 'clean' or 'noisy'.
        sweep: the frontier table of :func:`r2v_core.results.frontier.frontier`, if thresholds were swept.
    """
    rows = long[(long["condition"] == condition) & (long["seed"] == summarised_seed(list(long["seed"])))]
    with _figure(7.2, 4.4) as (figure, grid):
        axes = grid[0, 0]
        if sweep is not None:
            _curves(axes, sweep[sweep["condition"] == condition])
        parts = {method: rows[rows["method"] == method].set_index("metric") for method in _methods(rows)}
        points = [(part.loc["avg_cost", "value"], part.loc["success_rate", "value"]) for part in parts.values()]
        for (method, part), extra in zip(parts.items(), _extra_sizes(points), strict=True):
            x, y = part.loc["avg_cost"], part.loc["success_rate"]
            look = _marker(method)
            axes.errorbar(
                x["value"], y["value"], xerr=_error(x), yerr=_error(y), capsize=2, elinewidth=1, label=method,
                ls="none", ecolor="#777777", **look | {"markersize": look["markersize"] + extra},
            )  # fmt: skip
        axes.set_ylim(-0.03, 1.06)
        axes.set_xlim(left=0)
        _percent(axes)
        axes.set_xlabel("Cost per episode (units)")
        axes.set_ylabel("Episodes solved")
        axes.set_title(f"Success against cost, {condition}")
        _legend_right(figure, axes)
    return figure


def _extra_sizes(points: list[tuple[float, float]]) -> list[float]:
    """How much larger to draw a marker so that those drawn later on the same spot don't hide it."""
    near = 0.03 * max((x for x, _ in points), default=0.0)
    return [
        4.0 * sum(abs(x - a) < near and abs(y - b) < 0.03 for a, b in points[i + 1 :])
        for i, (x, y) in enumerate(points)
    ]


def _curves(axes: Axes, sweep: pd.DataFrame) -> None:
    """A line a rule through its swept thresholds, from the small model alone to the teacher alone."""
    ends = sweep[sweep["rule"].isin(ENDS)]
    for rule in sorted(set(sweep["rule"]) - set(ENDS), key=method_rank):
        points = pd.concat([ends, sweep[sweep["rule"] == rule]]).sort_values("avg_cost")
        colour, marker, line = style(rule)
        axes.plot(
            points["avg_cost"], points["success_rate"], color=colour, ls=line, lw=1.6, marker=marker,
            markersize=4, zorder=1.5, label=f"{rule}, other thresholds",
        )  # fmt: skip


def _error(row: pd.Series) -> list[list[float]] | None:
    low, high = row["value"] - row["ci_low"], row["ci_high"] - row["value"]
    return None if np.isnan(low) or np.isnan(high) else [[max(low, 0.0)], [max(high, 0.0)]]


def success_per_seed(frames: Frames, analysis: Analysis) -> Figure:
    """Success rate of each perturbation seed (dots), with the mean of the tail that CVaR looks at (bar)."""
    tallies = {method: by_seed for (method, condition), by_seed in make_tallies(frames).items() if condition == "noisy"}
    with _figure(7.2, 0.8 + 0.55 * len(tallies)) as (figure, grid):
        axes = grid[0, 0]
        for row, (method, by_seed) in enumerate(tallies.items()):
            rates = [seed_rates(found, np.ones((1, len(found.tasks))))[0] for found in by_seed.values()]
            every = np.concatenate(rates)
            offsets = _spread(every)
            colour, marker, _ = style(method)
            axes.scatter(
                every, row + offsets, s=28, color=colour, marker=marker, edgecolor="#222222", linewidth=0.5, zorder=3
            )
            tail = float(np.mean([np.sort(r)[: worst_count(r.size, analysis.cvar_alpha)].mean() for r in rates]))
            axes.plot(
                [tail, tail], [row - 0.42, row + 0.42], color="#222222", lw=2.5, zorder=2, solid_capstyle="butt",
                label=f"1 − CVaR (α = {analysis.cvar_alpha:g})" if row == 0 else None,
            )  # fmt: skip
        axes.set_yticks(range(len(tallies)), list(tallies))
        axes.invert_yaxis()
        axes.set_xlim(-0.03, 1.03)
        _percent(axes, "x")
        axes.set_xlabel("Episodes solved under one perturbation seed")
        axes.set_title("Success per perturbation seed, noisy")
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right")
    return figure


def _spread(rates: np.ndarray) -> np.ndarray:
    """Vertical offsets that lay equal rates side by side instead of on top of each other; shape of ``rates``."""
    offsets = np.zeros(rates.size)
    for value in np.unique(rates):
        at = np.flatnonzero(rates == value)
        offsets[at] = np.linspace(-0.3, 0.3, at.size + 2)[1:-1]
    return offsets


def reliability_diagram(frames: Frames, condition: str, methods: tuple[str, ...] = ("r2v",)) -> Figure | None:
    """Observed failure against predicted risk, with the number of steps in each bin; None without labelled steps."""
    steps = frames.steps[(frames.steps["condition"] == condition) & frames.steps["method"].isin(methods)]
    steps = steps[steps["probability"].notna() & steps["label"].notna()]
    if steps.empty:
        return None
    with _figure(5.4, 5.2, rows=2) as (figure, grid):
        axes, below = grid[:, 0]
        grid[0, 0].get_gridspec().set_height_ratios([3, 1])
        axes.plot([0, 1], [0, 1], color="#777777", ls="--", lw=1, label="perfectly calibrated")
        for method in _methods(steps):
            part = steps[steps["method"] == method]
            table = reliability_table(part["probability"], part["label"])
            ece = expected_calibration_error(part["probability"], part["label"])
            filled = table[table["n"] > 0]
            label = f"{method} (ECE {ece:.3f})"
            axes.plot(filled["probability"], filled["observed"], lw=1.5, label=label, **_marker(method))
            below.stairs(table["n"], [*table["low"], 1.0], fill=True, alpha=0.6, color=style(method)[0])
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("Small model's action fails")
        axes.set_title(f"Reliability of the risk score, {condition}")
        axes.legend(loc="upper left")
        below.set_ylabel("Steps")
        below.set_xlabel("Predicted probability of failure")
        for each in (axes, below):
            each.set_xlim(-0.03, 1.03)
            _percent(each, "x")
        _percent(axes)
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
    with _figure(7.6, 1.9 + 0.42 * len(mixed), rows=2) as (figure, grid):
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


def success_by_perturbation(frames: Frames, analysis: Analysis) -> Figure | None:
    """Success in the episodes that each perturbation family struck, by method; None without noisy episodes."""
    table = success_breakdown(frames, analysis, "perturbations")
    table = table[table["condition"] == "noisy"]
    if table.empty:
        return None
    groups = sorted(table["group"].unique(), key=lambda name: (name == "none", name))
    methods = _methods(table)
    with _figure(8.2, 1.4 + 0.13 * len(groups) * (len(methods) + 2)) as (figure, grid):
        axes = grid[0, 0]
        for i, method in enumerate(methods):
            part = table[table["method"] == method].set_index("group")
            present = [group for group in groups if group in part.index]
            rows = part.loc[present]
            y = [groups.index(group) + (i - (len(methods) - 1) / 2) / (len(methods) + 2) for group in present]
            low, high = (rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)
            axes.errorbar(
                rows["value"], y, xerr=[low.fillna(0), high.fillna(0)], ls="none", elinewidth=1, ecolor="#777777",
                label=method, **{**_marker(method), "markersize": 7},
            )  # fmt: skip
        sizes = table.groupby("group")["n"].max()
        names = [f"{'no noise struck' if g == 'none' else g}\n(up to {sizes[g]} episodes)" for g in groups]
        axes.set_yticks(range(len(groups)), names)
        axes.invert_yaxis()
        axes.set_xlim(-0.03, 1.03)
        _percent(axes, "x")
        axes.grid(axis="y", visible=False)
        for boundary in range(len(groups) - 1):
            axes.axhline(boundary + 0.5, color="#bbbbbb", lw=0.8)
        axes.set_xlabel("Episodes solved")
        axes.set_title("Success by perturbation family that struck, noisy")
        _legend_right(figure, axes)
    return figure


def ablation_deltas(table: pd.DataFrame) -> Figure | None:
    """What each variant loses or gains against the full method, in success and in cost; None without ablations.

    Args:
        table: :attr:`ResultsManager.ablations`; its differences are full − variant and are shown the other way round.
    """
    if table.empty:
        return None
    with _figure(8.2, 1.5 + 0.34 * len(table), columns=2) as (figure, grid):
        left, right = grid[0]
        for axes, column in ((left, "difference"), (right, "cost_difference")):
            axes.axvline(0, color="#222222", lw=1)
            for y, row in enumerate(table.to_dict("records")):
                low, high = json.loads(row[f"{column}_ci"] or "[NaN, NaN]")
                value, shown = -row[column], row["verdict"] != "not shown"
                error = None if np.isnan(low) else [[max(value + high, 0)], [max(-low - value, 0)]]
                face = style("r2v")[0] if shown and axes is left else "white"
                axes.errorbar(
                    value, y, xerr=error, color=style("r2v")[0], marker="o", markersize=7, markerfacecolor=face,
                    markeredgecolor="#222222", ecolor="#555555", elinewidth=1.2, capsize=2,
                )  # fmt: skip
            axes.set_ylim(len(table) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
        left.set_yticks(range(len(table)), table["baseline"])
        right.set_yticks(range(len(table)), [])
        _percent(left, "x")
        left.set_xlabel("Success, variant − full")
        right.set_xlabel("Cost (units), variant − full")
        figure.suptitle(
            "Ablations against the full method, noisy (filled: shown after correction)", fontsize=11, fontweight="bold"
        )
    return figure


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
    if "noisy" in conditions:
        drawn["success_per_seed"] = success_per_seed(frames, analysis)
        drawn["success_by_perturbation"] = success_by_perturbation(frames, analysis)
    for condition in conditions:
        drawn[f"reliability_{condition}"] = reliability_diagram(frames, condition)
        drawn[f"escalations_{condition}"] = escalation_positions(frames, condition)
    drawn["ablation_deltas"] = ablation_deltas(results.ablations)
    return {name: save(figure, folder, name) for name, figure in drawn.items() if figure is not None}
