"""The house style of figures: colour-blind safe (Okabe & Ito 2008), as PNG for screens and SVG and PDF for print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r2v_core.agent.rules.table import RULES
from r2v_core.results.naming import method_rank

FORMATS = ("png", "svg", "pdf")

_RC = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "r2v",
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
}

_DATELESS = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


@contextmanager
def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure and its axes (2-d array), in the house style; no display needed and no global state left behind."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height))
        yield figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure in every format of :data:`FORMATS`; returns the PNG's path. Same figure, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_RC):
        for suffix in FORMATS:
            figure.savefig(folder / f"{name}.{suffix}", metadata=_DATELESS[suffix])
            figure.set_layout_engine("none")  # laid out by now; the other forms keep the places
    return folder / f"{name}.png"


def style(method: str) -> tuple[str, str, str]:
    """Colour, marker and line style of a method; grey for what is no rule (the variants of an ablation)."""
    rule = RULES.get(method)
    return (rule.colour, rule.marker, rule.line) if rule else ("#888888", "h", "-")


def marker_of(method: str) -> dict[str, Any]:
    """How to draw a method's points."""
    colour, marker, _ = style(method)
    size = {"*": 14, "r2v": 10}.get(marker if marker == "*" else method, 8)
    return {"color": colour, "marker": marker, "markersize": size, "markeredgecolor": "#222222", "markeredgewidth": 0.7}


def methods_of(table: pd.DataFrame) -> list[str]:
    """The methods of a table, in the order of the rules."""
    return sorted(table["method"].unique(), key=method_rank)


def percent(axes: Axes, axis: str = "y") -> None:
    """Label an axis in per cent."""
    which = axes.yaxis if axis == "y" else axes.xaxis
    which.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))


def legend_right(figure: Figure, axes: Axes) -> None:
    """Put the legend of the axes to the right of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
