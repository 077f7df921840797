"""The threshold sweep: success against teacher calls of every scoring rule, and the area under each curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2v_core.agent.rules.table import rule_of
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import Metric, Tally, metric_functions
from r2v_core.evaluation.statistics import Resamples, estimate, percentile_interval, resampled
from r2v_core.results.bundles import Analysis
from r2v_core.results.tables import format_interval, make_tallies, method_rank, resamples_for

ENDS = ("slm_only", "llm_only")
"""Every curve begins where no step and ends where every step goes to the teacher."""

FRONTIER_COLUMNS = [
    "rule", "method", "condition", "llm_call_rate", "llm_call_rate_ci", "success_rate", "success_rate_ci",
    "cvar_failure", "cvar_failure_ci", "avg_cost", "avg_cost_ci", "n_episodes",
]  # fmt: skip
AREA_COLUMNS = ["rule", "condition", "area", "area_ci", "difference", "difference_ci", "verdict", "n_points",
                "n_tasks"]  # fmt: skip

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
        for name in ("llm_call_rate", "success_rate", "avg_cost", *(("cvar_failure",) if condition != "clean" else ())):
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


def frontier_areas(frames: Frames, analysis: Analysis, reference: str = "r2v") -> pd.DataFrame:
    """The area under each rule's curve, and how much larger the reference's is, with intervals over tasks.

    Intervals are paired: every rule is recomputed on the same drawn tasks. 'not shown' where the difference's interval
    holds 0. Empty without a sweep or without its ends.
    """
    tallies = make_tallies(frames)
    metrics = metric_functions(analysis.cvar_alpha)
    rows = []
    for condition in sorted({condition for _, condition in tallies}):
        rules = sorted({rule_of(m) for m, c in tallies if "@" in m and c == condition}, key=method_rank)
        if not rules or any((end, condition) not in tallies for end in ENDS):
            continue
        by_seed = tallies[ENDS[0], condition]
        resamples = resamples_for(by_seed, analysis)
        found = {}
        for rule in rules:
            points = [
                tallies[m, c] for m, c in tallies if c == condition and (m in ENDS or ("@" in m and rule_of(m) == rule))
            ]
            found[rule] = (*_area(points, metrics, resamples), len(points))
        for rule, (value, draws, n) in found.items():
            row = {"rule": rule, "condition": condition, "area": value, "n_points": n, "n_tasks": resamples.n_tasks}
            row["area_ci"] = format_interval(*percentile_interval(draws, analysis.confidence))
            if rule != reference and reference in found:
                best, best_draws, _ = found[reference]
                low, high = percentile_interval(best_draws - draws, analysis.confidence)
                row["difference"], row["difference_ci"] = best - value, format_interval(low, high)
                row["verdict"] = "better" if low > 0 else "worse" if high < 0 else "not shown"
            rows.append(row)
    return pd.DataFrame(rows).reindex(columns=AREA_COLUMNS)


def _area(points: list[dict[int, Tally]], metrics: dict[str, Metric], resamples: Resamples) -> tuple[float, Floats]:
    """A curve's area on the data and on each resample, each point averaged over partition seeds."""
    calls = [resampled(point, metrics["llm_call_rate"], resamples) for point in points]
    success = [resampled(point, metrics["success_rate"], resamples) for point in points]
    value = area(np.array([[found.mean()] for found, _ in calls]), np.array([[found.mean()] for found, _ in success]))
    draws = area(np.stack([draws for _, draws in calls]), np.stack([draws for _, draws in success]))
    return float(value[0]), draws
