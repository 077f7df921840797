"""The same numbers by group: benchmark family, or family of noise that struck."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import tally
from r2v_core.results.bundles import Analysis
from r2v_core.results.evaluations import EVALUATION_COLUMNS, cells, estimates, seed_groups
from r2v_core.results.naming import is_probabilistic, method_rank

GROUPED = (
    "success_rate",
    "worst_seed_sr",
    "cvar_failure",
    "avg_cost",
    "avg_latency",
    "llm_call_rate",
    "safety_failure_rate",
    "ece",
    "brier",
    "avg_steps",
    "cost_usd",
    "tokens",
)
"""Metrics reported by group."""


def breakdown(
    frames: Frames, analysis: Analysis, by: str, metrics: Sequence[str] = GROUPED, per_seed: bool = True
) -> pd.DataFrame:
    """Metrics by benchmark ``family`` or by ``perturbations`` (episodes in which that family struck at least once).

    An episode struck by several perturbation families counts under each; 'none' are those that no noise reached.

    Args:
        frames: episodes and steps.
        analysis: how numbers are computed.
        by: 'family' or 'perturbations'.
        metrics: which of :data:`GROUPED`.
        per_seed: also each partition seed by itself, where there are several.

    Returns:
        Columns of :data:`EVALUATION_COLUMNS` and ``group``.
    """
    table = frames.episodes.assign(group=frames.episodes[by])
    if by == "perturbations":
        table = table.assign(group=table["group"].map(lambda text: (text or "none").split("+"))).explode("group")
    benchmark = str(table["benchmark"].iloc[0])
    identity = ["seed", "z", "replicate", "task_id"]
    steps = dict(iter(frames.steps.groupby(["method", "condition"])))
    rows = []
    for names, part in table.groupby(["method", "condition", "group"]):
        method, condition, group = (str(name) for name in names)
        scored = frames.steps.iloc[:0]
        if is_probabilistic(method) and (method, condition) in steps:
            scored = steps[method, condition].merge(part[identity], on=identity)
        by_seed = {int(seed): tally(some, scored[scored["seed"] == seed]) for seed, some in part.groupby("seed")}
        groups = seed_groups(by_seed)
        for seed, tallies in groups if per_seed else groups[-1:]:
            key = {"method": method, "benchmark": benchmark, "condition": condition, "seed": seed, "group": group}
            rows += [
                key | cells(metric, found, n) for metric, found, n in estimates(tallies, condition, analysis, metrics)
            ]
    return pd.DataFrame(rows, columns=[*EVALUATION_COLUMNS, "group"])


def success_breakdown(frames: Frames, analysis: Analysis, by: str) -> pd.DataFrame:
    """Success by group, see :func:`breakdown`.

    Returns:
        Columns ``method, condition, group, value, low, high, n``; all partition seeds together.
    """
    result = breakdown(frames, analysis, by, ("success_rate",), per_seed=False)
    result = result.rename(columns={"ci_low": "low", "ci_high": "high"})
    ranked = result.assign(rank=result["method"].map(lambda name: method_rank(name)[0]))
    ordered = ranked.sort_values(["condition", "group", "rank"], ignore_index=True)
    return ordered[["method", "condition", "group", "value", "low", "high", "n"]]
