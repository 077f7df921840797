"""The main table as LaTeX: booktabs, intervals under the values, best in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from r2v_core.agent.rules.table import RULES
from r2v_core.results.naming import drawn_over, method_rank, summarised_seed

UPPER_BOUNDS = frozenset(name for name, rule in RULES.items() if rule.upper_bound)
"""Methods that look at the truth and so can't be 'best'."""

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class LatexColumn:
    """A metric as a column."""

    metric: str
    title: str
    scale: float
    digits: int
    best: str  # 'max', 'min' or '' where no direction is better by itself


COLUMNS = (
    LatexColumn("success_rate", r"Success \%", 100, 1, "max"),
    LatexColumn("worst_seed_sr", r"Worst seed \%", 100, 1, "max"),
    LatexColumn("cvar_failure", r"CVaR$_{ALPHA}$ fail.\ \%", 100, 1, "min"),
    LatexColumn("llm_call_rate", r"Teacher calls \%", 100, 1, ""),
    LatexColumn("avg_cost", "Cost", 1, 1, ""),
    LatexColumn("safety_failure_rate", r"Unsafe \%", 100, 1, "min"),
    LatexColumn("ece", "ECE", 1, 3, "min"),
    LatexColumn("brier", "Brier", 1, 3, "min"),
)


def escape(text: str) -> str:
    """Any text as LaTeX text."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def main_table_latex(long: pd.DataFrame, *, alpha: float, confidence: float) -> str:
    r"""A ``table*`` environment to ``\input``; needs the packages booktabs and fontenc with T1.

    Args:
        long: the evaluations table of :func:`r2v_core.results.evaluations.evaluations`.
        alpha: tail share of the CVaR column.
        confidence: coverage of the intervals.
    """
    seed = summarised_seed(list(long["seed"]))
    rows = long[long["seed"] == seed]
    titles = " & ".join(column.title.replace("ALPHA", f"{alpha:g}") for column in COLUMNS)
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        r"\begin{table*}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{_caption(rows, seed, confidence)}}}",
        r"\label{tab:main}",
        r"\setlength{\tabcolsep}{4pt}",
        r"\vspace{4pt}",
        rf"\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}",
        r"\toprule",
        rf"Method & {titles} \\",
    ]
    for condition in sorted(rows["condition"].unique()):
        lines.append(r"\midrule")
        lines.append(rf"\multicolumn{{{len(COLUMNS) + 1}}}{{l}}{{\emph{{{escape(condition)}}}}} \\")
        lines += method_lines([rows[rows["condition"] == condition]], COLUMNS)
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def standalone(table_name: str) -> str:
    """A document that shows the table of the file ``table_name`` beside it."""
    return "\n".join(
        [
            r"\documentclass[10pt]{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage[a4paper,landscape,margin=1.5cm]{geometry}",
            r"\usepackage{booktabs}",
            r"\begin{document}",
            rf"\input{{{table_name}}}",
            r"\end{document}",
            "",
        ]
    )


def _caption(rows: pd.DataFrame, seed: str, confidence: float) -> str:
    counts = {name: int(rows[rows["metric"] == name]["value"].max()) for name in ("n_tasks", "n_z")}
    benchmark = escape(str(rows["benchmark"].iloc[0]))
    seeds = "mean over the partition seeds" if seed == "all" else f"partition seed {escape(seed)}"
    tails = rows[rows["metric"].isin(["worst_seed_sr", "cvar_failure"])]["ci_low"].notna().any()
    warning = " Those of worst seed and CVaR can hold the truth less often." if tails else ""
    return (
        f"{benchmark}: closed-loop results on {counts['n_tasks']} held-out tasks and up to {counts['n_z']} "
        f"perturbation seeds, {seeds}. Brackets: {confidence * 100:g}\\,\\% bootstrap intervals {drawn_over(seed)}."
        f"{warning} Cost in units per episode. Best value in bold, the oracle left out."
    )


def method_lines(groups: Sequence[pd.DataFrame], columns: Sequence[LatexColumn]) -> list[str]:
    """Two lines a method, values and intervals beneath; the same columns for each group, best of a group in bold.

    Args:
        groups: long tables of one condition and seed each, side by side; empty ones give dashes.
        columns: what is shown of each.
    """
    methods = sorted({method for rows in groups for method in rows["method"]}, key=method_rank)
    cells = [{(m, name): (value, low, high) for m, name, value, low, high in _values(rows)} for rows in groups]
    best = [{column.metric: _best(column, rows) for column in columns} for rows in groups]
    lines = []
    for method in methods:
        values, intervals = [], []
        for known, tops in zip(cells, best, strict=True):
            for column in columns:
                value, low, high = known.get((method, column.metric), (float("nan"),) * 3)
                text = "--" if pd.isna(value) else f"{value * column.scale:.{column.digits}f}"
                bold = text != "--" and method not in UPPER_BOUNDS and text == tops[column.metric]
                values.append(rf"\textbf{{{text}}}" if bold else text)
                intervals.append(_interval(column, low, high))
        lines.append(rf"{escape(method)} & {' & '.join(values)} \\")
        lines.append(rf" & {' & '.join(intervals)} \\[2pt]")
    return lines


def _values(rows: pd.DataFrame) -> list[tuple[str, str, float, float, float]]:
    return list(rows[["method", "metric", "value", "ci_low", "ci_high"]].itertuples(index=False, name=None))


def _interval(column: LatexColumn, low: float, high: float) -> str:
    if pd.isna(low) or pd.isna(high):
        return ""
    digits = column.digits
    return rf"{{\scriptsize [{low * column.scale:.{digits}f}, {high * column.scale:.{digits}f}]}}"


def _best(column: LatexColumn, rows: pd.DataFrame) -> str | None:
    part = rows[(rows["metric"] == column.metric) & ~rows["method"].isin(UPPER_BOUNDS)]["value"].dropna()
    if not column.best or len(part) < 2:
        return None
    value = part.max() if column.best == "max" else part.min()
    return f"{value * column.scale:.{column.digits}f}"
