"""The main table, wide: one row a method, condition and seed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from r2v_core.evaluation.frame import TOKENS
from r2v_core.results.naming import format_interval, method_rank, seed_key

MAIN_COLUMNS = [
    "method",
    "benchmark",
    "condition",
    "seed",
    "success_rate",
    "success_rate_ci",
    "worst_seed_sr",
    "cvar_failure",
    "bottom_10_sr",
    "avg_cost",
    "avg_latency",
    "llm_call_rate",
    "safety_failure_rate",
    "ece",
    "brier",
    "n_episodes",
    "n_tasks",
    "n_z",
    "n_injected",
    "n_labelled_steps",
    "robustness_gap",
    "robustness_gap_ci",
    "worst_seed_sr_ci",
    "cvar_failure_ci",
    "avg_cost_ci",
    "llm_call_rate_ci",
    "ece_ci",
    "avg_steps",
    "cost_usd",
    "tokens",
    "success_rate_sd",
    "cvar_failure_sd",
    "llm_call_rate_sd",
    "n_errors",
    "n_flagged",
    "cvar_failure_null",
    "n_templates",
    "avg_teacher_calls",
    "avg_teacher_calls_ci",
    "calls_vs_llm_only",
    "calls_vs_llm_only_ci",
    "cost_vs_llm_only",
    "cost_vs_llm_only_ci",
    *TOKENS,
    "ece_debiased",
    "ece_debiased_ci",
]

COUNTS = ("n_episodes", "n_tasks", "n_templates", "n_z", "n_injected", "n_labelled_steps", "n_errors", "n_flagged")


def main_table(long: pd.DataFrame) -> pd.DataFrame:
    """The wide form: one row a method, condition and seed, columns as in :data:`MAIN_COLUMNS`."""
    rows = []
    for key, part in long.groupby(["method", "benchmark", "condition", "seed"], sort=False):
        cells: dict[str, Any] = dict(zip(["method", "benchmark", "condition", "seed"], key, strict=True))
        for name, value, low, high, spread in part[["metric", "value", "ci_low", "ci_high", "spread"]].itertuples(
            index=False
        ):
            cells[name] = int(value) if name in COUNTS else value
            cells[f"{name}_ci"] = format_interval(low, high)
            cells[f"{name}_sd"] = spread
        rows.append(cells)
    table = pd.DataFrame(rows).reindex(columns=MAIN_COLUMNS)
    order = sorted(
        range(len(table)),
        key=lambda i: (table["condition"][i], method_rank(table["method"][i]), seed_key(table["seed"][i])),
    )
    return table.iloc[order].reset_index(drop=True)
