"""How well each rule's risk score tells failing actions from others, on the same steps: those of ``r2v``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from r2v_core.agent.rules.table import RULES
from r2v_core.evaluation.discrimination import scored
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import AUC, Tally
from r2v_core.evaluation.statistics import difference, estimate
from r2v_core.results.bundles import Analysis
from r2v_core.results.comparisons import REFERENCE
from r2v_core.results.naming import format_interval, method_rank, seed_label
from r2v_core.results.tallies import resamples_for

RISK_SCORE_COLUMNS = ["rule", "condition", "seed", "auc", "auc_ci", "difference", "difference_ci", "n_steps",
                      "n_failing", "n_templates"]  # fmt: skip


def rule_scores(method: str, features: Mapping[str, float]) -> dict[str, float] | None:
    """What the rules that compare one number with a threshold say of a step of ``r2v``; None of other methods' steps.

    A feature that a step lacks (written by an earlier version) leaves its rule out.
    """
    if method != REFERENCE:
        return None
    found = {}
    for rule in RULES.values():
        if rule.score is not None and rule.scope == "step":
            try:
                found[rule.name] = float(rule.score(features))
            except KeyError:
                continue
    return found


def risk_scores(frames: Frames, analysis: Analysis) -> pd.DataFrame:
    """The AUC of each score on the labelled steps that ``r2v`` met, and how much larger r2v's is, with intervals.

    The label is the steps' own: the small model's chosen action would not have made progress. All scores see the same
    steps, so differences are paired; they get no verdict. A score that is missing at some step is left out, a condition
    whose steps have one label only, too.
    """
    steps = frames.steps[frames.steps["method"] == REFERENCE]
    steps = steps[steps["label"].notna() & steps["probability"].notna()]
    rows: list[dict[str, Any]] = []
    for condition, here in steps.groupby("condition"):
        if here["label"].nunique() < 2:
            continue
        played = frames.episodes
        played = played[(played["method"] == REFERENCE) & (played["condition"] == condition)]
        for rule, by_seed in _tallies(played, here, condition != "clean").items():
            if rule == REFERENCE:
                mine, resamples = by_seed, resamples_for(by_seed, analysis)
            found = estimate(by_seed, AUC, resamples)
            row = {"rule": rule, "condition": condition, "seed": seed_label(by_seed), "auc": found.value}
            row["auc_ci"] = format_interval(found.low, found.high)
            if rule != REFERENCE:
                lead = difference(mine, by_seed, AUC, resamples)
                row |= {"difference": lead.value, "difference_ci": format_interval(lead.low, lead.high)}
            row |= {"n_steps": len(here), "n_failing": int(here["label"].sum()), "n_templates": resamples.n_clusters}
            rows.append(row)
    return pd.DataFrame(rows, columns=RISK_SCORE_COLUMNS)


def _tallies(episodes: pd.DataFrame, steps: pd.DataFrame, worlds: bool) -> dict[str, dict[int, Tally]]:
    """Rule → training seed → its scored steps, r2v first."""
    scores = pd.DataFrame([found or {} for found in steps["scores"]], index=steps.index, dtype=float)
    complete = [name for name in sorted(scores, key=method_rank) if scores[name].notna().all()]
    columns = {REFERENCE: steps["probability"]} | {name: scores[name] for name in complete}
    made: dict[str, dict[int, Tally]] = {rule: {} for rule in columns}
    for seed, part in steps.groupby("seed"):
        own = episodes[episodes["seed"] == seed]
        templates = dict(zip(own["task_id"], own["template_id"], strict=True))
        for rule, column in columns.items():
            made[rule][int(seed)] = scored(part, column.loc[part.index], templates, worlds)
    return made
