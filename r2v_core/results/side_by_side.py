"""Several experiments, or the seeds of one, beside each other: methods × columns, as papers print it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from r2v_core.results.bundles import Bundle, bundle_frames
from r2v_core.results.evaluations import evaluations
from r2v_core.results.latex import COLUMNS, escape, method_lines
from r2v_core.results.naming import method_rank, seed_key, summarised_seed
from r2v_core.results.tables import main_table

CELLS = ("success_rate", "success_rate_ci", "avg_cost", "llm_call_rate", "n_episodes")
"""Columns of the main table that the CSV form repeats for each experiment."""
PRINTED = ("success_rate", "avg_cost", "llm_call_rate")
"""Metrics of a column group on paper."""
HEADINGS = ("success", "cost", "teacher calls")


@dataclass(frozen=True)
class Column:
    """A group of the table's columns: one experiment, or one seed of it."""

    title: str
    bundles: tuple[Bundle, ...]
    long: pd.DataFrame = field(repr=False)
    """Its evaluations, as :func:`r2v_core.results.evaluations.evaluations` gives them: one seed, or 'all'."""

    @property
    def seeds(self) -> list[int]:
        """Partition seeds that the numbers are made of."""
        return sorted({bundle.seed for bundle in self.bundles})

    def rows(self, condition: str) -> pd.DataFrame:
        """The evaluations of one condition."""
        return self.long[self.long["condition"] == condition]


def columns_of(experiment: str, bundles: Sequence[Bundle], by_seed: bool = False, alone: bool = True) -> list[Column]:
    """The columns of one experiment.

    Args:
        experiment: its name.
        bundles: compared methods of the seeds that count, all of one set of result tables.
        by_seed: a column a seed, and one over all of them where there are several.
        alone: whether it is the only experiment, so that titles can do without its name.
    """
    long = evaluations(bundle_frames(bundles), bundles[0].analysis)
    labels = sorted(set(long["seed"]), key=seed_key) if by_seed else [summarised_seed(list(long["seed"]))]
    return [
        Column(
            _title(experiment, label, alone) if by_seed else experiment,
            tuple(bundle for bundle in bundles if label in ("all", str(bundle.seed))),
            long[long["seed"] == label],
        )
        for label in labels
    ]


def _title(experiment: str, label: str, alone: bool) -> str:
    seed = "all seeds" if label == "all" else f"seed {label}"
    return seed if alone else f"{experiment} {seed}"


def conditions(columns: Sequence[Column]) -> list[str]:
    """The conditions that any of them was evaluated under."""
    return sorted({condition for column in columns for condition in column.long["condition"]})


def wide_table(columns: Sequence[Column]) -> pd.DataFrame:
    """One row a condition and method; for each column ``<title> <metric>`` with the cells of its main table."""
    tables = []
    for column in columns:
        table = main_table(column.long).set_index(["condition", "method"])[list(CELLS)]
        tables.append(table.rename(columns={name: f"{column.title} {name}" for name in CELLS}))
    joined = pd.concat(tables, axis=1)
    order = sorted(joined.index, key=lambda key: (key[0], method_rank(key[1])))
    return joined.loc[order].reset_index()


def records(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """:func:`wide_table` as records, missing cells as None."""
    table = wide_table(columns)
    found: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return found


def markdown(columns: Sequence[Column], notes: Sequence[str] = ()) -> str:
    """A Markdown table for each condition, padded so that it reads in a terminal too, and notes beneath."""
    parts = [_grid(_section(columns, condition)) for condition in conditions(columns)]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _section(columns: Sequence[Column], condition: str) -> list[list[str]]:
    known = [
        {(method, metric): cells for method, metric, *cells in _values(column.rows(condition))} for column in columns
    ]
    methods = sorted({method for cells in known for method, _ in cells}, key=method_rank)
    rows = [[condition, *(text for column in columns for text in (column.title, "", ""))]]
    rows.append(["method", *HEADINGS * len(columns)])
    for method in methods:
        rows.append([method, *(_text(metric, cells.get((method, metric))) for cells in known for metric in PRINTED)])
    return rows


def _values(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(rows[["method", "metric", "value", "ci_low", "ci_high"]].itertuples(index=False, name=None))


def _text(metric: str, cells: Sequence[float] | None) -> str:
    """``97.9% [95.8, 99.6]``, ``139.2`` or ``35.7%``."""
    if cells is None or pd.isna(cells[0]):
        return "–"
    value, low, high = cells
    if metric == "avg_cost":
        return f"{value:.1f}"
    if metric == "llm_call_rate" or pd.isna(low) or pd.isna(high):
        return f"{value:.1%}"
    return f"{value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _grid(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = [text.ljust(width) if i == 0 else text.rjust(width)
                          for i, (text, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append(f"| {' | '.join([first, *others])} |")
    rule = "| " + " | ".join(["-" * widths[0], *("-" * (max(width, 2) - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def latex(columns: Sequence[Column], notes: Sequence[str] = ()) -> str:
    r"""A ``table*`` to ``\input``, in the form of ``main_table.tex``: a column group each, notes beneath."""
    shown = [column for metric in PRINTED for column in COLUMNS if column.metric == metric]
    n = len(shown)
    groups = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{escape(column.title)}}}" for column in columns)
    rules = " ".join(rf"\cmidrule(lr){{{2 + n * i}-{1 + n * (i + 1)}}}" for i in range(len(columns)))
    confidence = columns[0].bundles[0].analysis.confidence
    benchmarks = ", ".join(sorted({escape(bundle.benchmark) for column in columns for bundle in column.bundles}))
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        r"\begin{table*}[t]",
        r"\centering",
        r"\small",
        rf"\caption{{{benchmarks}: closed-loop results side by side. Brackets: {confidence * 100:g}\,\% bootstrap "
        r"intervals over templates and worlds, and over training seeds where a column has several. Cost in units per "
        r"episode. Best value of a column in bold, the oracle left out.}",
        r"\label{tab:comparison}",
        r"\setlength{\tabcolsep}{4pt}",
        r"\vspace{4pt}",
        rf"\begin{{tabular}}{{l{'r' * n * len(columns)}}}",
        r"\toprule",
        rf" & {groups} \\",
        rules,
        rf"Method & {' & '.join(column.title for _ in columns for column in shown)} \\",
    ]
    for condition in conditions(columns):
        lines.append(r"\midrule")
        lines.append(rf"\multicolumn{{{1 + n * len(columns)}}}{{l}}{{\emph{{{escape(condition)}}}}} \\")
        lines += method_lines([column.rows(condition) for column in columns], shown)
    lines += [r"\bottomrule", r"\end{tabular}"]
    if notes:
        lines.append(r"\par\vspace{4pt}\raggedright\footnotesize")
        lines += [rf"{escape(note)}\par" for note in notes]
    lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"
