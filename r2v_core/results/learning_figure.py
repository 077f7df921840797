"""The learning curve of a router, drawn."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from r2v_core.results.plotting import new_figure, style

PANELS = {
    "auc": "AUC (higher is better)",
    "log_loss": "Log loss, nats (lower is better)",
    "brier": "Brier score (lower is better)",
    "ece_debiased": "Calibration error, debiased (nearer to 0)",
}
"""Column → title of its panel."""


def learning_curve_figure(table: pd.DataFrame, title: str) -> Figure:
    """Each metric against the number of templates, with the spread between subsets; rules of one number as flat lines.

    Args:
        table: columns ``name, templates`` and of each metric its mean and ``<metric>_sd``; of a single size: a flat
            line.
        title: above all panels.
    """
    with new_figure(8.2, 6.6, rows=2, columns=2) as (figure, grid):
        for axes, (metric, what) in zip(grid.flat, PANELS.items(), strict=True):
            for name, rows in table.groupby("name", sort=False):
                if len(rows) == 1:
                    colour, _, line = style(str(name))
                    axes.axhline(rows[metric].iloc[0], color=colour, ls=line, lw=1.6, label=f"{name}, on all")
                    continue
                colour, marker, line = style("r2v")
                look: dict[str, Any] = {"color": colour, "ls": line, "marker": marker, "lw": 1.6, "markersize": 6}
                spread = rows[f"{metric}_sd"].fillna(0.0)
                axes.errorbar(
                    rows["templates"], rows[metric], yerr=spread, capsize=2, elinewidth=1, label=f"{name} ± sd", **look
                )
            if metric == "ece_debiased":
                axes.axhline(0, color="#222222", lw=1)
            sizes = sorted(table["templates"].unique())
            axes.set_xscale("log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set_title(what)
        for axes in grid[1]:
            axes.set_xlabel("Router templates learnt from")
        figure.suptitle(title, fontsize=11, fontweight="bold")
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=len(names))
    return figure
