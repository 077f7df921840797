"""The threshold sweep: success against cost and teacher calls of every scoring rule, and the areas under the curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2v_core.agent.rules.table import rule_of
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import Metric, Tally, metric_functions
from r2v_core.evaluation.statistics import (
    Estimate,
    Resamples,
    bootstrap_p,
    estimate,
    holm,
    percentile_interval,
    resampled,
    verdict,
)
from r2v_core.results.bundles import Analysis
from r2v_core.results.tables import format_interval, make_tallies, method_rank, resamples_for

ENDS = ("slm_only", "llm_only")
"""Every curve begins where no step and ends where every step goes to the teacher."""

FRONTIER_COLUMNS = [
    "rule", "method", "condition", "llm_call_rate", "llm_call_rate_ci", "success_rate", "success_rate_ci",
    "cvar_failure", "cvar_failure_ci", "avg_cost", "avg_cost_ci", "n_episodes", "avg_teacher_calls",
    "avg_teacher_calls_ci",
]  # fmt: skip
AREA_COLUMNS = ["rule", "condition", "area", "area_ci", "difference", "difference_ci", "verdict", "n_points",
                "n_tasks", "cost_area", "cost_area_ci", "cost_area_difference", "cost_area_difference_ci",
                "cost_area_verdict", "p", "p_holm", "cost_area_p", "cost_area_p_holm"]  # fmt: skip

Floats = NDArray[np.float64]


def frontier(frames: Frames, analysis: Analysis) -> pd.DataFrame:
    """Every point of the sweep with its intervals, and the ends; all partition seeds together."""
    metrics = metric_functions(analysis.cvar_alpha)
    rows = []
    for (method, condition), tallies in make_tallies(frames).items():
        if "@" not in method and method not in ENDS:
            continue
        resamples = resamples_for(tallies, analysis)
        row: dict[str, Any] = {"rule": rule_of(method), "method": method, "condition": condition}
        row["n_episodes"] = int(sum(found.episodes.sum() for found in tallies.values()))
        shown = ("llm_call_rate", "success_rate", "avg_cost", "avg_teacher_calls")
        for name in (*shown, *(("cvar_failure",) if condition != "clean" else ())):
            found = estimate(tallies, metrics[name], resamples)
            row[name], row[f"{name}_ci"] = found.value, format_interval(found.low, found.high)
        rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=FRONTIER_COLUMNS)
    order = [
        (c, method_rank(r), x) for c, r, x in table[["condition", "rule", "llm_call_rate"]].itertuples(index=False)
    ]
    return table.iloc[sorted(range(len(table)), key=order.__getitem__)].reset_index(drop=True)


def area(calls: Floats, success: Floats) -> Floats:
    """Area under success over the share of teacher calls, by trapezoids between points sorted by their share.

    Args:
        calls: share of teacher calls of each point, shape (points, B); its least is the small model alone (0) and its
            largest the teacher alone (1), so that the area lies in [0, 1] and is a mean success rate.
        success: success rates, the same shape.

    Returns:
        Shape (B,).
    """
    order = np.argsort(calls, axis=0, kind="stable")
    x, y = np.take_along_axis(calls, order, axis=0), np.take_along_axis(success, order, axis=0)
    return np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2, axis=0)


def cost_area(cost: Floats, success: Floats, ends: tuple[int, int]) -> Floats:
    """Area under success over cost, from the small model alone to the teacher alone, as a mean success rate in [0, 1].

    A point that costs more than the teacher alone counts as the teacher alone, which is to be had for less; likewise at
    the other end.

    Args:
        cost: mean cost of an episode at each point, shape (points, B).
        success: success rates, the same shape.
        ends: rows of the small model alone and of the teacher alone.

    Returns:
        Shape (B,); NaN where the teacher alone does not cost more than the small model alone.
    """
    low, high = cost[ends[0]], cost[ends[1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.where(high > low, (cost - low) / (high - low), np.nan)
    below, above = x <= 0, x >= 1
    y = np.where(below, success[ends[0]], np.where(above, success[ends[1]], success))
    return area(np.clip(x, 0.0, 1.0), y)


def frontier_areas(frames: Frames, analysis: Analysis, reference: str = "r2v") -> pd.DataFrame:
    """The areas under each rule's curve, and how much larger the reference's are, with intervals over templates.

    Intervals are paired: every rule is recomputed on the same drawn templates. All differences of the table are one
    family for Holm's correction; one is 'not shown' unless its corrected p is below 0.05 and its interval excludes 0.
    Empty without a sweep or without its ends. ``cost_area`` is the one to go by: a share of calls falls when an agent
    dithers, its cost does not.
    """
    tallies = make_tallies(frames)
    metrics = metric_functions(analysis.cvar_alpha)
    rows: list[dict[str, Any]] = []
    differences: list[tuple[dict[str, Any], str, Estimate]] = []
    for condition in sorted({condition for _, condition in tallies}):
        rules = sorted({rule_of(m) for m, c in tallies if "@" in m and c == condition}, key=method_rank)
        if not rules or any((end, condition) not in tallies for end in ENDS):
            continue
        by_seed = tallies[ENDS[0], condition]
        resamples = resamples_for(by_seed, analysis)
        found = {}
        for rule in rules:
            swept = [m for m, c in tallies if c == condition and "@" in m and rule_of(m) == rule]
            points = [tallies[m, condition] for m in (*ENDS, *swept)]
            found[rule] = (_areas(points, metrics, resamples), len(points))
        n_tasks = len({task for tally in by_seed.values() for task in tally.tasks})
        for rule, (areas, n) in found.items():
            row: dict[str, Any] = {"rule": rule, "condition": condition, "n_points": n, "n_tasks": n_tasks}
            best = found[reference][0] if rule != reference and reference in found else {}
            for name, (value, draws) in areas.items():
                row[name] = value
                low, high = percentile_interval(draws, analysis.confidence, resamples.n_clusters)
                row[f"{name}_ci"] = format_interval(low, high)
                if best:
                    lead, apart = best[name][0] - value, best[name][1] - draws
                    low, high = percentile_interval(apart, analysis.confidence, resamples.n_clusters)
                    start = "" if name == "area" else f"{name}_"
                    row[f"{start}difference"] = lead
                    row[f"{start}difference_ci"] = format_interval(low, high)
                    row[f"{start}p"] = bootstrap_p(lead, apart, resamples.n_clusters)
                    differences.append((row, start, Estimate(lead, low, high)))
            rows.append(row)
    known = [one for one in differences if not np.isnan(one[0][f"{one[1]}p"])]
    for (row, start, _), p in zip(known, holm([row[f"{start}p"] for row, start, _ in known]), strict=True):
        row[f"{start}p_holm"] = float(p)
    for row, start, delta in differences:
        row[f"{start}verdict"] = verdict(delta, row.get(f"{start}p_holm", np.nan))
    return pd.DataFrame(rows).reindex(columns=AREA_COLUMNS)


def _areas(
    points: list[dict[int, Tally]], metrics: dict[str, Metric], resamples: Resamples
) -> dict[str, tuple[float, Floats]]:
    """A curve's areas on the data and on each resample, each point averaged over partition seeds; the ends first."""
    made = {
        name: [resampled(point, metrics[name], resamples) for point in points]
        for name in ("llm_call_rate", "avg_cost", "success_rate")
    }
    value = {name: np.array([[found.mean()] for found, _ in column]) for name, column in made.items()}
    draws = {name: np.stack([draws for _, draws in column]) for name, column in made.items()}
    calls, cost, success = "llm_call_rate", "avg_cost", "success_rate"
    return {
        "area": (float(area(value[calls], value[success])[0]), area(draws[calls], draws[success])),
        "cost_area": (
            float(cost_area(value[cost], value[success], (0, 1))[0]),
            cost_area(draws[cost], draws[success], (0, 1)),
        ),
    }
