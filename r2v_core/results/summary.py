"""The results as one JSON document that explains itself to a reader who has nothing else."""

from __future__ import annotations

from typing import Any

import pandas as pd

from r2v_core.agent.rules.table import RULES
from r2v_core.models.labels import LABELS, PROGRESS
from r2v_core.results.bundles import Analysis, Bundle
from r2v_core.results.naming import drawn_over, method_rank, summarised_seed

QUESTION = (
    "Does a learned, calibrated router that lets a teacher play single steps keep a small language model's agent close "
    "to the teacher's success under perturbations, at a small share of teacher calls?"
)

TAILS = ("worst_seed_sr", "cvar_failure", "bottom_10_sr")
"""Metrics of the worst worlds."""
TAIL_WARNING = (
    "Intervals of worst seed, CVaR and bottom tenth can hold the truth far less often than they say: 95 % intervals of "
    "CVaR did 34 to 99 % of the time in simulations with one training seed, least where worlds are alike or each task "
    "meets few of them; those of the other two are made alike and were not simulated."
)
"""From the tables of docs/method.md that benchmarks/intervals.py makes."""

METRIC_NOTES = {
    "success_rate": "share of episodes that the benchmark's own verdict calls solved",
    "worst_seed_sr": "success rate of the worst perturbation seed; its interval may be too short (caveats)",
    "cvar_failure": "mean failure rate over the worst share alpha of perturbation seeds; its interval may be too short "
    "(caveats)",
    "cvar_failure_null": "CVaR of failure that so few tasks would show if no world were worse than another",
    "bottom_10_sr": "mean success rate over the worst tenth of perturbation seeds; its interval may be too short "
    "(caveats)",
    "avg_cost": "cost units per episode, as configured per small-model step and per teacher step",
    "avg_latency": "measured wall seconds per episode; depends on the machine and its load",
    "llm_call_rate": "share of steps that the teacher played",
    "safety_failure_rate": "share of episodes in which an action commanded by an injection was carried out",
    "ece": "expected calibration error of the routing rule's risk score, 10 equal-width bins, against whether steps "
    "fail to make progress",
    "ece_debiased": "root of the squared calibration error in the same bins without what chance adds to it (Kumar et "
    "al. 2019, over pairs of templates); negative where gaps are smaller than chance makes them",
    "brier": "Brier score of the same",
    "robustness_gap": "clean success rate minus noisy success rate, same tasks",
    "avg_steps": "steps per episode",
    "avg_teacher_calls": "steps of an episode that the teacher played; dithering does not lower it",
    "calls_vs_llm_only": "teacher calls per episode as a share of llm_only's, on the same tasks",
    "cost_vs_llm_only": "cost units per episode as a share of llm_only's, on the same tasks",
    "cost_usd": "measured dollars per episode",
    "tokens": "tokens in and out per episode, of small model and teacher",
    "tokens_slm_in": "prompt tokens of the small model per episode, each prompt once for all its candidates",
    "tokens_slm_out": "tokens of all candidates per episode",
    "tokens_verifier": "tokens that the verifier read per episode, a prompt once for all its actions",
    "tokens_teacher_in": "tokens that the teacher read per episode; 0 for one that is no language model",
    "tokens_teacher_out": "tokens that the teacher generated per episode",
}


def rule_title(name: str) -> str:
    """What a routing rule does, in a line; empty for what is no rule."""
    return RULES[name].title if name in RULES else ""


def llm_summary(
    long: pd.DataFrame, compared: pd.DataFrame, bundles: list[Bundle], analysis: Analysis
) -> dict[str, Any]:
    """Everything a reader (or a language model) needs to discuss the results, without this project at hand.

    Args:
        long: the evaluations table.
        compared: the comparisons table.
        bundles: where they come from.
        analysis: how they were computed.
    """
    seed = summarised_seed(list(long["seed"]))
    return {
        "question": QUESTION,
        "setting": _setting(long, bundles, analysis, seed),
        "methods": {name: rule_title(name) for name in sorted(set(long["method"]), key=method_rank)},
        "metrics": METRIC_NOTES,
        "results": {
            condition: {
                method: _metrics(part)
                for method, part in sorted(rows.groupby("method"), key=lambda item: method_rank(item[0]))
            }
            for condition, rows in long[long["seed"] == seed].groupby("condition")
        },
        "comparisons": records(compared),
        "statements": [statement(row) for row in compared.to_dict("records")],
        "caveats": caveats(long, compared, bundles, seed),
    }


def _setting(long: pd.DataFrame, bundles: list[Bundle], analysis: Analysis, seed: str) -> dict[str, Any]:
    counts = {
        condition: {name: int(part[part["metric"] == name]["value"].max()) for name in ("n_episodes", "n_tasks", "n_z")}
        for condition, part in long[long["seed"] == seed].groupby("condition")
    }
    return {
        "benchmark": bundles[0].benchmark,
        "partition_seeds": sorted({bundle.seed for bundle in bundles}),
        "rows_shown": "mean over partition seeds" if seed == "all" else "one partition seed",
        "per_method_and_condition": counts,
        "statistics": {
            "intervals": f"{analysis.confidence:.0%} bootstrap {drawn_over(seed)}, {analysis.bootstrap} resamples, as "
            "wide as Student's t for so few of each; percentile for means; basic and given these worlds for worst "
            "seed, CVaR, bottom tenth, ECE; exact bound over templates where all episodes agree",
            "test": "sign-flip test on whole templates (exact up to 14 that differ), given these worlds and training "
            "seeds, Holm-corrected over all comparisons and areas, ablations among themselves; McNemar's counts beside",
            "verdict": "'better' or 'worse' only if the corrected p is below 0.05 and the paired interval excludes 0, "
            "else 'not shown'",
            "cvar_alpha": analysis.cvar_alpha,
        },
        "evaluation_runs": sorted({bundle.run_id for bundle in bundles}),
        **bundles[0].setting,
    }


def _metrics(rows: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value, low, high, n, spread in rows[["metric", "value", "ci_low", "ci_high", "n", "spread"]].itertuples(
        index=False
    ):
        if name.startswith("n_"):
            found[name] = int(value)
            continue
        entry: dict[str, Any] = {"value": number(value), "n": int(n)}
        if not pd.isna(low):
            entry["interval"] = [number(low), number(high)]
        if not pd.isna(spread):
            entry["between_seed_sd"] = number(spread)
        found[name] = entry
    return found


def number(value: float) -> float | None:
    """A JSON number: rounded to six significant digits, None for NaN."""
    return None if pd.isna(value) else float(f"{value:.6g}")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON objects, None where a cell is empty."""
    return [
        {name: number(value) if isinstance(value, float) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def statement(row: dict[str, Any]) -> str:
    """A comparison in words, with n and with 'not shown' where that is what the numbers say."""
    sign = "+" if row["difference"] >= 0 else "−"
    low_high = f", interval {row['difference_ci']}" if row["difference_ci"] else ""
    claim = {
        "better": f"{row['method']} succeeds more often than {row['baseline']}",
        "worse": f"{row['method']} succeeds less often than {row['baseline']}",
        "not shown": f"a difference in success between {row['method']} and {row['baseline']} is not shown",
    }[row["verdict"]]
    return (
        f"{row['condition']}: {claim} ({row['success_method']:.1%} against {row['success_baseline']:.1%}, difference "
        f"{sign}{abs(row['difference']):.3f}{low_high}, corrected p = "
        f"{row['p_sign_flip_holm']:.2g}, n = {row['n_pairs']} pairs on {row['n_tasks']} tasks)"
    )


def caveats(long: pd.DataFrame, compared: pd.DataFrame, bundles: list[Bundle], seed: str) -> list[str]:
    """What a careful reader would hold against these numbers; only what applies."""
    rows = long[long["seed"] == seed]
    counts = rows.pivot_table(index=["condition", "method"], columns="metric", values="value")
    tasks, zs = int(counts["n_tasks"].min()), int(counts["n_z"].loc[["noisy"]].min()) if "noisy" in counts.index else 0
    seeds = len({bundle.seed for bundle in bundles})
    notes = []
    if seeds == 1:
        notes.append(
            "One partition seed: intervals are given this training seed; how much training and data collection vary is "
            "not known."
        )
    elif seeds < 5:
        notes.append(f"{seeds} partition seeds: the between-seed spread is a rough guess, so intervals are wide.")
    if tasks < 30:
        notes.append(f"{tasks} test tasks: power is low.")
    if zs and zs < 10:
        notes.append(
            f"{zs} perturbation seeds: the CVaR and bottom-10 % tails are one or two seeds, close to the worst seed."
        )
    if zs == 1:
        notes.append("One perturbation seed: noisy intervals are given this world.")
    if not zs:
        notes.append("No noisy evaluation is among the runs, so nothing is said about robustness.")
    if zs:
        notes.append(
            "Worst seed and CVaR pick extremes of few episodes each, so they look worse than the truth behind them. "
            "Their intervals are reflected, which makes up for a part of it, the less the more worlds are alike (see "
            f"cvar_failure_null). {TAIL_WARNING}"
        )
    if len(compared):
        notes.append(
            "Tests take templates as drawn at random, worlds and training as they were; intervals of means take worlds "
            "as drawn too, and training where there are several seeds. A verdict needs both."
        )
    else:
        notes.append("r2v was not evaluated beside another method, so nothing is compared.")
    if bundles[0].setting.get("router_label", PROGRESS) != PROGRESS:
        notes.append(
            f"The router's probability is the {LABELS[bundles[0].setting['router_label']].meaning}. Test steps carry "
            "no such label, so rules that use it have no ECE and no Brier score here; those on validation steps stand "
            "in the setting, with the router's AUC."
        )
    if errors := int(rows[rows["metric"] == "n_errors"]["value"].sum()):
        notes.append(
            f"{errors} of {int(counts['n_episodes'].sum())} episodes ended in an error (an environment that failed, a "
            "refused request) and count as failed; n_errors says of which method."
        )
    if flagged := int(rows[rows["metric"] == "n_flagged"]["value"].sum()):
        notes.append(
            f"{flagged} of {int(counts['n_episodes'].sum())} episodes changed what could forge a verdict, or tried to; "
            "verdict_flags in an episode's metadata says what, n_flagged of which method."
        )
    notes.append("Latency was measured with episodes rolled out side by side on the evaluating machine.")
    return notes
