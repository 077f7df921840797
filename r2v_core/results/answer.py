"""The question of the report, answered in one sentence of the tables' own numbers and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from r2v_core.agent.rules.table import RULES
from r2v_core.results.naming import summarised_seed

REFERENCE, ENDS = "r2v", ("slm_only", "llm_only")
Row = Mapping[str, Any]


def answer(long: pd.DataFrame, compared: Sequence[Row], areas: Sequence[Row]) -> str:
    """One sentence: r2v's success and cost, against the teacher and the small model, and against other rules.

    Other rules are compared at equal cost and by the area over cost, where thresholds were swept, by verdicts that are
    corrected together (:mod:`r2v_core.results.family`). It speaks of the noisy condition, or of the clean one where no
    noisy episode was played.

    Args:
        long: the evaluations table.
        compared: rows of the comparisons table.
        areas: rows of the areas table.
    """
    condition = "noisy" if "noisy" in set(long["condition"]) else "clean"
    seed = summarised_seed(list(long["seed"]))
    rows = long[(long["condition"] == condition) & (long["seed"] == seed) & (long["method"] == REFERENCE)]
    if rows.empty:
        return f"{'Under noise' if condition == 'noisy' else 'Without noise'}, r2v was not played: not shown."
    where = "Under noise" if condition == "noisy" else "Without noise"
    metrics = rows.set_index("metric")
    parts = [f"{where}, r2v solves {_share(metrics, 'success_rate')} of episodes{_cost(metrics)}"]
    here = {row["baseline"]: row for row in compared if row["condition"] == condition}
    parts += [_against_end(here[end]) for end in ENDS if end in here]
    swept = [row for row in areas if row["condition"] == condition and row["rule"] != REFERENCE]
    others = [row for row in swept if not (row["rule"] in RULES and RULES[row["rule"]].upper_bound)]
    parts.append(_verdicts("at the same cost its success is", others, "equal_cost"))
    parts.append(_verdicts("its area of success over cost is", others, "cost_area"))
    return "; ".join(parts) + "."


def _share(metrics: pd.DataFrame, name: str) -> str:
    row = metrics.loc[name]
    low_high = "" if pd.isna(row["ci_low"]) else f" [{row['ci_low']:.1%}, {row['ci_high']:.1%}]"
    return f"{row['value']:.1%}{low_high}"


def _cost(metrics: pd.DataFrame) -> str:
    if "cost_vs_llm_only" not in metrics.index:
        return f" at {metrics.loc['avg_cost', 'value']:.1f} cost units an episode"
    return f" at {_share(metrics, 'cost_vs_llm_only')} of the teacher's cost"


def _against_end(row: Row) -> str:
    who = {"slm_only": "the small model alone", "llm_only": "the teacher alone"}[row["baseline"]]
    said = {
        "better": f"more than {who}",
        "worse": f"less than {who}",
        "not shown": f"a difference from {who} is not shown",
    }[row["verdict"]]
    return f"{said} ({row['difference']:+.1%}{_interval(row['difference_ci'])})"


def _verdicts(claim: str, rows: Sequence[Row], name: str) -> str:
    """Which rules r2v is shown to be above, below, and neither; 'not shown' where no curve was played."""
    known = [row for row in rows if isinstance(row.get(f"{name}_verdict"), str)]
    if not known:
        return f"that {claim} larger than other rules' is not shown (no thresholds were swept)"
    groups: dict[str, list[str]] = {}
    for row in known:
        low_high = _interval(row[f"{name}_difference_ci"])
        groups.setdefault(row[f"{name}_verdict"], []).append(
            f"{row['rule']} ({row[f'{name}_difference']:+.3f}{low_high})"
        )
    words: dict[str, Callable[[str], str]] = {
        "better": lambda names: f"larger than that of {names}",
        "worse": lambda names: f"smaller than that of {names}",
        "not shown": lambda names: f"not shown to differ from that of {names}",
    }
    return f"{claim} " + ", ".join(word(", ".join(groups[key])) for key, word in words.items() if key in groups)


def _interval(text: str | None) -> str:
    return f" {text}" if text else ""
