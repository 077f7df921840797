"""From frames to the numbers of the main table: evaluations (long form), main table (wide form)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from r2v_core.agent.rules.table import RULES
from r2v_core.digest import rng
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import (
    Tally,
    cvar_failure_null,
    metric_functions,
    tally,
)
from r2v_core.evaluation.resampling import Resamples, draw, resampled
from r2v_core.evaluation.statistics import Estimate, difference, estimate, interval
from r2v_core.results.bundles import Analysis

EVALUATION_COLUMNS = ["method", "benchmark", "condition", "seed", "metric", "value", "ci_low", "ci_high", "n", "spread"]

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
]

COUNTS = ("n_episodes", "n_tasks", "n_templates", "n_z", "n_injected", "n_labelled_steps", "n_errors", "n_flagged")


def method_rank(method: str) -> tuple[int, str]:
    """Sort key that puts the methods in the order of the routing rules; others follow by name."""
    order = list(RULES)
    return (order.index(method) if method in order else len(order), method)


def is_probabilistic(method: str) -> bool:
    """Whether a method's risk score claims to be the probability that the small model's action fails.

    The entropy rule's score is in nats, others have none: no calibration is reported for them.
    """
    return method in RULES and RULES[method].probabilistic


def seed_key(seed: str) -> tuple[int, int]:
    """Sort key of the seed column: numbers first, then 'all'."""
    return (0, int(seed)) if seed.isdigit() else (1, 0)


def summarised_seed(seeds: list[str]) -> str:
    """The rows that speak for the experiment: 'all' where seeds were aggregated, else the only seed."""
    return max(set(seeds), key=seed_key)


def drawn_over(seed: str) -> str:
    """What the intervals of a seed's rows are over ('all': of several seeds), in words."""
    if seed == "all":
        return "over training seeds, templates and worlds"
    return "over templates and worlds, given this training seed"


Tallies = dict[tuple[str, str], dict[int, Tally]]
"""(method, condition) → partition seed → sums."""


def make_tallies(frames: Frames) -> Tallies:
    """The sums of every method, condition and partition seed."""
    keys = ["method", "condition", "seed"]
    steps = dict(iter(frames.steps.groupby(keys)))
    tallies: Tallies = {}
    for key, rows in frames.episodes.groupby(keys):
        method, condition, seed = key
        scored = steps.get(key, frames.steps.iloc[:0]) if is_probabilistic(method) else frames.steps.iloc[:0]
        found = tally(rows, scored)
        tallies.setdefault((str(method), str(condition)), {})[int(seed)] = found
    order = sorted(tallies, key=lambda key: (method_rank(key[0]), key[1]))
    return {key: tallies[key] for key in order}


def resamples_for(tallies: Mapping[int, Tally], analysis: Analysis) -> Resamples:
    """The draws for these sums; equal tasks and worlds get equal draws, so methods stay paired."""
    design = tuple((seed, t.templates, t.zs if t.worlds else ()) for seed, t in tallies.items())
    return _draw(design, analysis.bootstrap, analysis.confidence)


@lru_cache(maxsize=16)
def _draw(
    design: tuple[tuple[int, tuple[str, ...], tuple[int, ...]], ...], n_resamples: int, confidence: float
) -> Resamples:
    templates = {seed: names for seed, names, _ in design}
    worlds = {seed: zs for seed, _, zs in design}
    return draw(templates, worlds, n_resamples, confidence, rng("bootstrap over tasks"))


def evaluations(frames: Frames, analysis: Analysis) -> pd.DataFrame:
    """Every metric of every method, condition and seed, with interval: the long form of the main table.

    Where there are several partition seeds, rows with seed 'all' hold the mean over them, its interval (seeds resampled
    too) and their standard deviation (``spread``); a row of one seed is given that training. ``n`` counts episodes, for
    calibration metrics labelled steps. Metrics over perturbation seeds are left out of the clean condition, which has
    none.
    """
    rows: list[dict[str, Any]] = []
    benchmark = str(frames.episodes["benchmark"].iloc[0])
    tallies = make_tallies(frames)
    for (method, condition), by_seed in tallies.items():
        clean = tallies.get((method, "clean"), {})
        for seed, group in _seed_groups(by_seed):
            key = {"method": method, "benchmark": benchmark, "condition": condition, "seed": seed}
            for metric, found, n in _estimates(group, condition, analysis):
                rows.append(key | _cells(metric, found, n))
            gap = _robustness_gap(clean, group, analysis) if condition == "noisy" else None
            if gap is not None:
                rows.append(key | _cells("robustness_gap", gap, _n_episodes(group)))
            if condition == "noisy":
                null = np.mean([cvar_failure_null(found, analysis.cvar_alpha, rng("null")) for found in group.values()])
                rows.append(key | _cells("cvar_failure_null", Estimate(float(null)), _n_episodes(group)))
            for metric, found in _against_llm_only(group, tallies.get(("llm_only", condition), {}), analysis).items():
                rows.append(key | _cells(metric, found, _n_episodes(group)))
            for name, count in _counts(group).items():
                rows.append(key | _cells(name, Estimate(count), _n_episodes(group)))
    return pd.DataFrame(rows, columns=EVALUATION_COLUMNS)


def _cells(metric: str, found: Estimate, n: int) -> dict[str, Any]:
    return {
        "metric": metric,
        "value": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "n": n,
        "spread": found.spread,
    }


def _seed_groups(by_seed: dict[int, Tally]) -> list[tuple[str, dict[int, Tally]]]:
    groups = [(str(seed), {seed: by_seed[seed]}) for seed in sorted(by_seed)]
    return [*groups, ("all", by_seed)] if len(by_seed) > 1 else groups


def _n_episodes(group: Mapping[int, Tally]) -> int:
    return int(sum(found.episodes.sum() for found in group.values()))


def _counts(group: Mapping[int, Tally]) -> dict[str, float]:
    return {
        "n_episodes": _n_episodes(group),
        "n_tasks": len({task for found in group.values() for task in found.tasks}),
        "n_templates": len({template for found in group.values() for template in found.templates}),
        "n_z": max(len(found.zs) for found in group.values()),
        "n_injected": float(sum(found.sums["injected"].sum() for found in group.values())),
        "n_errors": float(sum(found.sums["error"].sum() for found in group.values())),
        "n_flagged": float(sum(found.sums["flagged"].sum() for found in group.values())),
        "n_labelled_steps": sum(found.n_labelled for found in group.values()),
    }


def _estimates(
    group: dict[int, Tally], condition: str, analysis: Analysis, wanted: Sequence[str] | None = None
) -> list[tuple[str, Estimate, int]]:
    resamples = resamples_for(group, analysis)
    labelled = sum(found.n_labelled for found in group.values())
    result = []
    for name, metric in metric_functions(analysis.cvar_alpha).items():
        if wanted is not None and name not in wanted:
            continue
        if (metric.over == "seeds" and condition == "clean") or (metric.over == "labelled" and not labelled):
            continue
        n = labelled if metric.over == "labelled" else _n_episodes(group)
        result.append((name, estimate(group, metric, resamples), n))
    return result


def _robustness_gap(clean: Mapping[int, Tally], noisy: Mapping[int, Tally], analysis: Analysis) -> Estimate | None:
    """Clean − noisy success; None unless both conditions were played on the same tasks of the same seeds."""
    if any(seed not in clean or clean[seed].tasks != found.tasks for seed, found in noisy.items()):
        return None
    same = {seed: clean[seed] for seed in noisy}
    metric = metric_functions(analysis.cvar_alpha)["success_rate"]
    return difference(same, noisy, metric, resamples_for(noisy, analysis))


RELATIVE = {"calls_vs_llm_only": "avg_teacher_calls", "cost_vs_llm_only": "avg_cost"}
"""Metric → what is divided by what ``llm_only`` has of it."""


def _against_llm_only(
    group: Mapping[int, Tally], llm_only: Mapping[int, Tally], analysis: Analysis
) -> dict[str, Estimate]:
    """Calls and cost an episode as shares of ``llm_only``'s, on the same draws; nothing if it was not played on the
    same tasks under the same perturbation seeds.
    """
    if any(
        seed not in llm_only or (llm_only[seed].tasks, llm_only[seed].zs) != (found.tasks, found.zs)
        for seed, found in group.items()
    ):
        return {}
    same = {seed: llm_only[seed] for seed in group}
    resamples, metrics, made = resamples_for(group, analysis), metric_functions(analysis.cvar_alpha), {}
    for name, metric in RELATIVE.items():
        points, draws = resampled(group, metrics[metric], resamples)
        whole, whole_draws = resampled(same, metrics[metric], resamples)
        if whole.mean() == 0:  # every episode of llm_only ended in an error before its first step
            continue
        ratios = np.divide(draws, whole_draws, where=whole_draws > 0, out=np.full_like(draws, np.nan))
        ratio = float(points.mean() / whole.mean())
        made[name] = Estimate(ratio, *interval(ratio, ratios, resamples, bounds=(0.0, np.inf)))
    return made


def format_interval(low: float, high: float) -> str:
    """``[0.512, 0.730]``, empty where there is none."""
    return "" if np.isnan(low) or np.isnan(high) else f"[{low:.3f}, {high:.3f}]"


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
    identity = ["seed", "z", "task_id"]
    steps = dict(iter(frames.steps.groupby(["method", "condition"])))
    rows = []
    for key, part in table.groupby(["method", "condition", "group"]):
        method, condition, group = (str(name) for name in key)
        scored = frames.steps.iloc[:0]
        if is_probabilistic(method) and (method, condition) in steps:
            scored = steps[method, condition].merge(part[identity], on=identity)
        by_seed = {int(seed): tally(some, scored[scored["seed"] == seed]) for seed, some in part.groupby("seed")}
        groups = _seed_groups(by_seed)
        for seed, tallies in groups if per_seed else groups[-1:]:
            cells = {"method": method, "benchmark": benchmark, "condition": condition, "seed": seed, "group": group}
            rows += [
                cells | _cells(metric, found, n)
                for metric, found, n in _estimates(tallies, condition, analysis, metrics)
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
