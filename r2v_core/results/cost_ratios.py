"""What the areas over cost would be if a teacher step cost another multiple of a small-model step; nothing is played.

An episode costs what the small model's part of its steps costs, plus a price for each teacher call, so its cost at
another price follows from the calls that were recorded. Everything else is as it was played: policy, router and
thresholds were trained and calibrated at the run's own ratio. A sensitivity analysis, hence no tests and no verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import Metric, Tally, metric_functions
from r2v_core.evaluation.resampling import Resamples
from r2v_core.evaluation.statistics import interval
from r2v_core.results.bundles import Analysis
from r2v_core.results.comparisons import REFERENCE
from r2v_core.results.frontier import ENDS, Curve, cost_area, points_of, swept_curves
from r2v_core.results.naming import format_interval
from r2v_core.results.tallies import make_tallies, resamples_for

Floats = NDArray[np.float64]

RATIOS = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
"""What a teacher step costs, in small-model steps."""
COST_RATIO_COLUMNS = ["condition", "rule", "ratio", "as_played", "cost_area", "cost_area_ci", "difference",
                      "difference_ci"]  # fmt: skip


def cost_ratios(frames: Frames, analysis: Analysis, ratios: Sequence[float] = RATIOS) -> pd.DataFrame:
    """The area over cost of each swept rule at each ratio, and how much larger the reference's is.

    A ratio is the price of a teacher call over what a step costs on average where the small model plays alone. The
    run's own is among the rows (``as_played``); there the areas are those of ``frontier_areas.csv``. Intervals and
    paired differences are made as theirs, without a test.

    Args:
        frames: everything that was played, sweeps (``<rule>@<share>``) as methods.
        analysis: how numbers are computed.
        ratios: to look at besides the run's own.

    Returns:
        Columns as in :data:`COST_RATIO_COLUMNS`; no rows where no thresholds were swept, the ends were not played, or
        the small model's steps cost nothing. Differences are NaN, with an empty interval, where there is nothing to
        compare.
    """
    tallies = make_tallies(frames)
    metrics = metric_functions(analysis.cvar_alpha)
    rows: list[dict[str, Any]] = []
    for condition, curves in swept_curves(tallies).items():
        small, teacher = (_price(tallies[end, condition], per) for end, per in zip(ENDS, PER, strict=True))
        if not (small > 0 and teacher > 0):
            continue
        own = float(f"{teacher / small:.6g}")
        wanted = sorted({*ratios, own})
        resamples = resamples_for(tallies[ENDS[0], condition], analysis)
        prices = [teacher if ratio == own else ratio * small for ratio in wanted]
        areas = {rule: _areas(curve, metrics, resamples, teacher, prices) for rule, curve in curves.items()}
        for rule, found in areas.items():
            for i, ratio in enumerate(wanted):
                value, draws = found[i]
                low_high = interval(value, draws, resamples, bounds=(0.0, 1.0))
                row: dict[str, Any] = {"condition": condition, "rule": rule, "ratio": ratio, "as_played": ratio == own}
                row |= {"cost_area": value, "cost_area_ci": format_interval(*low_high), "difference_ci": ""}
                if rule != REFERENCE and REFERENCE in areas:
                    best, best_draws = areas[REFERENCE][i]
                    low_high = interval(best - value, best_draws - draws, resamples, bounds=(-1.0, 1.0))
                    row |= {"difference": best - value, "difference_ci": format_interval(*low_high)}
                rows.append(row)
    return pd.DataFrame(rows).reindex(columns=COST_RATIO_COLUMNS)


PER = ("n_steps", "teacher_calls")
"""What the cost of the small model alone, and of the teacher alone, is divided by to get its price."""


def _price(by_seed: dict[int, Tally], per: str) -> float:
    """Mean cost of a step, or of a call, over all episodes; NaN where there was none."""
    cost, n = (sum(float(tally.sums[name].sum()) for tally in by_seed.values()) for name in ("cost", per))
    return cost / n if n else float("nan")


def _areas(
    curve: Curve, metrics: dict[str, Metric], resamples: Resamples, price: float, prices: Sequence[float]
) -> list[tuple[float, Floats]]:
    """The area over cost at each price of a teacher call, on the data and on the resamples.

    Args:
        curve: a rule's.
        metrics: by name.
        resamples: shared by all rules.
        price: of a call as it was played.
        prices: to look at.
    """
    points = list(curve.values())
    columns = [
        points_of(points, metrics[name], resamples) for name in ("avg_cost", "avg_teacher_calls", "success_rate")
    ]
    found = []
    for other in prices:
        once, drawn = (
            cost_area(cost + (other - price) * calls, success, (0, 1))
            for cost, calls, success in zip(*columns, strict=True)
        )
        found.append((float(once[0]), drawn))
    return found
