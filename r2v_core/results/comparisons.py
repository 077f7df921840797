"""One method against each other on the same episodes, with a test, its correction and what they allow to be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from r2v_core.digest import rng
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import metric_functions, tally
from r2v_core.evaluation.statistics import difference, estimate, holm, mcnemar_exact, sign_flip
from r2v_core.results.bundles import Analysis
from r2v_core.results.family import Contrast, correct
from r2v_core.results.naming import format_interval, method_rank, seed_label
from r2v_core.results.tallies import resamples_for

REFERENCE = "r2v"
"""The method that all others are compared with."""

COMPARISON_COLUMNS = [
    "method",
    "baseline",
    "benchmark",
    "condition",
    "seed",
    "n_pairs",
    "n_tasks",
    "success_method",
    "success_baseline",
    "difference",
    "difference_ci",
    "mcnemar_b",
    "mcnemar_c",
    "p_mcnemar",
    "p_holm",
    "verdict",
    "cvar_difference",
    "cvar_difference_ci",
    "cost_difference",
    "cost_difference_ci",
    "n_templates",
    "p_sign_flip",
    "p_sign_flip_holm",
]

ABLATION_COLUMNS = ["ablation", *COMPARISON_COLUMNS]


def comparisons(frames: Frames, analysis: Analysis, reference: str = REFERENCE) -> pd.DataFrame:
    """:func:`compare_methods` as a table of its own: its rows are one family for Holm's correction."""
    contrasts = compare_methods(frames, analysis, reference)
    correct(contrasts)
    return comparison_table(contrasts)


def comparison_table(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """The rows of corrected comparisons; McNemar's p-values are corrected among themselves."""
    rows = [one.row for one in contrasts]
    for row, p in zip(rows, holm([row["p_mcnemar"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def compare_methods(frames: Frames, analysis: Analysis, reference: str = REFERENCE) -> list[Contrast]:
    """``reference`` against each other method on the episodes that both played, all partition seeds together.

    A pair is one replicate of one task, under noise in one world, of one partition seed. Differences are
    ``reference`` − other. A verdict rests on the sign-flip test over templates and on the interval; McNemar's test,
    which takes the episodes of a template as independent, is a description. Empty if the reference was not evaluated.
    """
    table = frames.episodes
    contrasts = []
    for condition in sorted(table["condition"].unique()):
        here = table[table["condition"] == condition]
        mine = here[here["method"] == reference]
        if mine.empty:
            continue
        for other in sorted(set(here["method"]) - {reference}, key=method_rank):
            found = _compare(mine, here[here["method"] == other], frames.steps.iloc[:0], condition, analysis)
            if found is not None:
                contrasts.append(found)
    return contrasts


def _compare(
    mine: pd.DataFrame, theirs: pd.DataFrame, no_steps: pd.DataFrame, condition: str, analysis: Analysis
) -> Contrast | None:
    pair = ["seed", "task_id", "z", "replicate"]
    both = mine[pair].merge(theirs[pair], on=pair)
    if both.empty:
        return None
    first, second = (side.merge(both, on=pair).sort_values(pair, ignore_index=True) for side in (mine, theirs))
    mine_by_seed, theirs_by_seed = (
        {int(seed): tally(rows, no_steps) for seed, rows in side.groupby("seed")} for side in (first, second)
    )
    metrics = metric_functions(analysis.cvar_alpha)
    resamples = resamples_for(mine_by_seed, analysis)
    delta = {
        name: difference(mine_by_seed, theirs_by_seed, metrics[name], resamples)
        for name in ("success_rate", "cvar_failure", "avg_cost")
    }
    test = mcnemar_exact(first["success"], second["success"])
    gained = first["success"].astype(float) - second["success"].astype(float)
    flipped = sign_flip(gained.groupby(first["template_id"]).sum(), rng("sign flips"))
    row: dict[str, Any] = {
        "method": mine["method"].iloc[0],
        "baseline": theirs["method"].iloc[0],
        "benchmark": mine["benchmark"].iloc[0],
        "condition": condition,
        "seed": seed_label(mine_by_seed),
        "n_pairs": len(both),
        "n_tasks": first["task_id"].nunique(),
        "n_templates": resamples.n_clusters,
        "success_method": estimate(mine_by_seed, metrics["success_rate"], resamples).value,
        "success_baseline": estimate(theirs_by_seed, metrics["success_rate"], resamples).value,
        "mcnemar_b": test.only_first,
        "mcnemar_c": test.only_second,
        "p_mcnemar": test.p,
        "p_sign_flip": flipped,
    }
    shown = {"difference": "success_rate", "cost_difference": "avg_cost"}
    if condition != "clean":
        shown["cvar_difference"] = "cvar_failure"
    for column, metric in shown.items():
        found = delta[metric]
        row[column] = found.value
        row[f"{column}_ci"] = format_interval(found.low, found.high)
    return Contrast(row, delta["success_rate"], flipped, "p_sign_flip_holm", "verdict")
