"""Every number of every method, condition and seed, with its interval: the long form of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from r2v_core.digest import rng
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import Tally, cvar_failure_null, metric_functions
from r2v_core.evaluation.resampling import resampled
from r2v_core.evaluation.statistics import Estimate, difference, estimate, interval
from r2v_core.results.bundles import Analysis
from r2v_core.results.tallies import make_tallies, resamples_for

EVALUATION_COLUMNS = ["method", "benchmark", "condition", "seed", "metric", "value", "ci_low", "ci_high", "n", "spread"]


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
        for seed, group in seed_groups(by_seed):
            key = {"method": method, "benchmark": benchmark, "condition": condition, "seed": seed}
            for metric, found, n in estimates(group, condition, analysis):
                rows.append(key | cells(metric, found, n))
            gap = _robustness_gap(clean, group, analysis) if condition == "noisy" else None
            if gap is not None:
                rows.append(key | cells("robustness_gap", gap, _n_episodes(group)))
            if condition == "noisy":
                null = np.mean([cvar_failure_null(found, analysis.cvar_alpha, rng("null")) for found in group.values()])
                rows.append(key | cells("cvar_failure_null", Estimate(float(null)), _n_episodes(group)))
            for metric, found in _against_llm_only(group, tallies.get(("llm_only", condition), {}), analysis).items():
                rows.append(key | cells(metric, found, _n_episodes(group)))
            for name, count in _counts(group).items():
                rows.append(key | cells(name, Estimate(count), _n_episodes(group)))
    return pd.DataFrame(rows, columns=EVALUATION_COLUMNS)


def cells(metric: str, found: Estimate, n: int) -> dict[str, Any]:
    """A number as the last cells of its row; ``n`` is what it was made from."""
    return {
        "metric": metric,
        "value": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "n": n,
        "spread": found.spread,
    }


def seed_groups(by_seed: dict[int, Tally]) -> list[tuple[str, dict[int, Tally]]]:
    """The rows of the seed column: each partition seed alone, and all together where there are several."""
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


def estimates(
    group: dict[int, Tally], condition: str, analysis: Analysis, wanted: Sequence[str] | None = None
) -> list[tuple[str, Estimate, int]]:
    """(metric, estimate, n) of every metric that applies, or of those ``wanted``."""
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
