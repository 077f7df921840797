"""Figures of success: against cost, by world, by family of noise, by ablation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import seed_rates, worst_count
from r2v_core.results.breakdowns import success_breakdown
from r2v_core.results.bundles import Analysis
from r2v_core.results.frontier import ENDS
from r2v_core.results.naming import method_rank, summarised_seed
from r2v_core.results.plotting import legend_right, marker_of, methods_of, new_figure, percent, style
from r2v_core.results.tallies import make_tallies


def frontier(long: pd.DataFrame, condition: str, sweep: pd.DataFrame | None = None) -> Figure:
    """Success against cost: a point a method with intervals both ways, a line a rule whose threshold was swept.

    Args:
        long: the evaluations table.
        condition: 'clean' or 'noisy'.
        sweep: the frontier table of :func:`r2v_core.results.frontier.frontier`, if thresholds were swept.
    """
    rows = long[(long["condition"] == condition) & (long["seed"] == summarised_seed(list(long["seed"])))]
    with new_figure(7.2, 4.4) as (figure, grid):
        axes = grid[0, 0]
        if sweep is not None:
            _curves(axes, sweep[sweep["condition"] == condition])
        parts = {method: rows[rows["method"] == method].set_index("metric") for method in methods_of(rows)}
        points = [(part.loc["avg_cost", "value"], part.loc["success_rate", "value"]) for part in parts.values()]
        for (method, part), extra in zip(parts.items(), _extra_sizes(points), strict=True):
            x, y = part.loc["avg_cost"], part.loc["success_rate"]
            look = marker_of(method)
            axes.errorbar(
                x["value"], y["value"], xerr=_error(x), yerr=_error(y), capsize=2, elinewidth=1, label=method,
                ls="none", ecolor="#777777", **look | {"markersize": look["markersize"] + extra},
            )  # fmt: skip
        axes.set_ylim(-0.03, 1.06)
        axes.set_xlim(left=0)
        percent(axes)
        axes.set_xlabel("Cost per episode (units)")
        axes.set_ylabel("Episodes solved")
        axes.set_title(f"Success against cost, {condition}")
        legend_right(figure, axes)
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


def cost_ratio_curves(table: pd.DataFrame, condition: str) -> Figure | None:
    """Areas over cost of the swept rules against the price of a teacher step, and r2v's leads; None without a sweep.

    Args:
        table: as :func:`r2v_core.results.cost_ratios.cost_ratios` makes it.
        condition: 'clean' or 'noisy'.
    """
    table = table[table["condition"] == condition]
    if table.empty:
        return None
    rules = sorted(table["rule"].unique(), key=method_rank)
    ratios, own = sorted(table["ratio"].unique()), table.loc[table["as_played"], "ratio"].iloc[0]
    with new_figure(9.6, 4.2, columns=2) as (figure, grid):
        left, right = grid[0]
        for i, rule in enumerate(rules):
            rows = table[table["rule"] == rule].sort_values("ratio")
            colour, marker, line = style(rule)
            look: dict[str, Any] = {"color": colour, "ls": line, "lw": 1.6, "marker": marker, "markersize": 6}
            left.plot(rows["ratio"], rows["cost_area"], label=rule, **look)
            if rows["difference"].isna().all():
                continue
            apart = 1.0 + 0.03 * (i - len(rules) / 2)  # intervals of several rules stand side by side
            ends = [json.loads(text or "[NaN, NaN]") for text in rows["difference_ci"]]
            error = np.array(
                [[max(d - a, 0), max(b - d, 0)] for d, (a, b) in zip(rows["difference"], ends, strict=True)]
            )
            right.errorbar(rows["ratio"] * apart, rows["difference"], yerr=error.T, elinewidth=1, capsize=2, **look)
        right.axhline(0, color="#222222", lw=1)
        left.set_ylabel("Area under success over cost")
        right.set_ylabel("r2v's area − the rule's")
        for axes in (left, right):
            axes.axvline(own, color="#444444", lw=1.2, ls=":", zorder=0.8)
            axes.set_xscale("log")
            axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
            axes.minorticks_off()
            axes.set_xlabel("Price of a teacher step, in small-model steps")
        figure.suptitle(
            f"If a teacher step cost more or less, {condition} (dotted: as played)", fontsize=11, fontweight="bold"
        )
        legend_right(figure, left)
    return figure


def success_per_seed(frames: Frames, analysis: Analysis) -> Figure:
    """Success rate of each perturbation seed (dots), with the mean of the tail that CVaR looks at (bar)."""
    tallies = {method: by_seed for (method, condition), by_seed in make_tallies(frames).items() if condition == "noisy"}
    with new_figure(7.2, 0.8 + 0.55 * len(tallies)) as (figure, grid):
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
        percent(axes, "x")
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


def success_by_perturbation(frames: Frames, analysis: Analysis) -> Figure | None:
    """Success in the episodes that each perturbation family struck, by method; None without noisy episodes."""
    table = success_breakdown(frames, analysis, "perturbations")
    table = table[table["condition"] == "noisy"]
    if table.empty:
        return None
    groups = sorted(table["group"].unique(), key=lambda name: (name == "none", name))
    methods = methods_of(table)
    with new_figure(8.2, 1.4 + 0.13 * len(groups) * (len(methods) + 2)) as (figure, grid):
        axes = grid[0, 0]
        for i, method in enumerate(methods):
            part = table[table["method"] == method].set_index("group")
            present = [group for group in groups if group in part.index]
            rows = part.loc[present]
            y = [groups.index(group) + (i - (len(methods) - 1) / 2) / (len(methods) + 2) for group in present]
            low, high = (rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)
            axes.errorbar(
                rows["value"], y, xerr=[low.fillna(0), high.fillna(0)], ls="none", elinewidth=1, ecolor="#777777",
                label=method, **{**marker_of(method), "markersize": 7},
            )  # fmt: skip
        sizes = table.groupby("group")["n"].max()
        names = [f"{'no noise struck' if g == 'none' else g}\n(up to {sizes[g]} episodes)" for g in groups]
        axes.set_yticks(range(len(groups)), names)
        axes.invert_yaxis()
        axes.set_xlim(-0.03, 1.03)
        percent(axes, "x")
        axes.grid(axis="y", visible=False)
        for boundary in range(len(groups) - 1):
            axes.axhline(boundary + 0.5, color="#bbbbbb", lw=0.8)
        axes.set_xlabel("Episodes solved")
        axes.set_title("Success by perturbation family that struck, noisy")
        legend_right(figure, axes)
    return figure


def ablation_deltas(table: pd.DataFrame) -> Figure | None:
    """What each variant loses or gains against the full method, in success and in cost; None without ablations.

    Args:
        table: :attr:`ResultsManager.ablations`; its differences are full − variant and are shown the other way round.
    """
    if table.empty:
        return None
    with new_figure(8.2, 1.5 + 0.34 * len(table), columns=2) as (figure, grid):
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
        percent(left, "x")
        left.set_xlabel("Success, variant − full")
        right.set_xlabel("Cost (units), variant − full")
        figure.suptitle(
            "Ablations against the full method, noisy (filled: shown after correction)", fontsize=11, fontweight="bold"
        )
    return figure
