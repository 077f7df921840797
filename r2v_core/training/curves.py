"""Loss curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def draw_curves(
    log: Sequence[Mapping[str, Any]], path: Path, title: str, panels: Mapping[str, Mapping[str, str]]
) -> None:
    """Draw a training log as one figure with a panel for each quantity.

    Args:
        log: lines with 'step' and numbers; a key may be missing from some lines.
        path: PNG to write.
        panels: axis label → {log key: line label}; a panel without a single number is left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = {label: keys for label, keys in panels.items() if any(key in line for line in log for key in keys)}
    figure = Figure(figsize=(4.6 * len(panels), 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (label, keys) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for key, name in keys.items():
            points = [(line["step"], line[key]) for line in log if key in line]
            if not points:
                continue
            steps, values = np.array(points, dtype=float).T
            (drawn,) = axis.plot(steps, values, marker="o", markersize=2.5, linewidth=0.8, alpha=0.45)
            window = max(1, len(values) // 10)
            axis.plot(steps, _smooth(values, window), color=drawn.get_color(), linewidth=1.8, label=name)
        axis.set_xlabel("optimiser step")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0] and len(keys) > 1:
            axis.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last ``window`` points (fewer at the start)."""
    return np.array([values[max(0, i + 1 - window) : i + 1].mean() for i in range(len(values))])
