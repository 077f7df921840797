"""The threshold sweep: success against cost and teacher calls of every scoring rule, and the areas under the curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2v_core.agent.rules.table import rule_of
from r2v_core.digest import rng
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import Metric, Tally, metric_functions
from r2v_core.evaluation.resampling import Resamples, resampled
from r2v_core.evaluation.statistics import Estimate, estimate, flip_p, flips, interval
from r2v_core.results.bundles import Analysis
from r2v_core.results.family import Contrast
from r2v_core.results.naming import format_interval, method_rank
from r2v_core.results.tallies import Tallies, make_tallies, resamples_for

ENDS = ("slm_only", "llm_only")
"""Every curve begins where no step and ends where every step goes to the teacher."""

FRONTIER_COLUMNS = [
    "rule", "method", "condition", "llm_call_rate", "llm_call_rate_ci", "success_rate", "success_rate_ci",
    "cvar_failure", "cvar_failure_ci", "avg_cost", "avg_cost_ci", "n_episodes", "avg_teacher_calls",
    "avg_teacher_calls_ci",
]  # fmt: skip
AREA_COLUMNS = ["rule", "condition", "area", "area_ci", "difference", "difference_ci", "verdict", "n_points",
                "n_tasks", "cost_area", "cost_area_ci", "cost_area_difference", "cost_area_difference_ci",
                "cost_area_verdict", "p", "p_holm", "cost_area_p", "cost_area_p_holm",
                "equal_cost", "equal_cost_success", "equal_cost_success_ci", "equal_cost_difference",
                "equal_cost_difference_ci", "equal_cost_verdict", "equal_cost_p", "equal_cost_p_holm"]  # fmt: skip
PREFIXES = {"area": "", "cost_area": "cost_area_", "equal_cost_success": "equal_cost_"}
"""What is computed from a curve → how the columns of its comparison begin."""

Floats = NDArray[np.float64]


def frontier(frames: Frames, analysis: Analysis) -> pd.DataFrame:
    """Every point of the sweep with its intervals, and the ends; all partition seeds together."""
    metrics = metric_functions(analysis.cvar_alpha)
    rows = []
    for (method, condition), tallies in make_tallies(frames).items():
        if "@" not in method and method not in ENDS:
            continue
        resamples = resamples_for(tallies, analysis)
        row: dict[str, Any] = {"rule": rule_of(method), "method": method, "condition": condition}
        row["n_episodes"] = int(sum(found.episodes.sum() for found in tallies.values()))
        shown = ("llm_call_rate", "success_rate", "avg_cost", "avg_teacher_calls")
        for name in (*shown, *(("cvar_failure",) if condition != "clean" else ())):
            found = estimate(tallies, metrics[name], resamples)
            row[name], row[f"{name}_ci"] = found.value, format_interval(found.low, found.high)
        rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=FRONTIER_COLUMNS)
    order = [
        (c, method_rank(r), x) for c, r, x in table[["condition", "rule", "llm_call_rate"]].itertuples(index=False)
    ]
    return table.iloc[sorted(range(len(table)), key=order.__getitem__)].reset_index(drop=True)


def area(calls: Floats, success: Floats) -> Floats:
    """Area under success over the share of teacher calls, by trapezoids between points sorted by their share.

    Args:
        calls: share of teacher calls of each point, shape (points, B); its least is the small model alone (0) and its
            largest the teacher alone (1), so that the area lies in [0, 1] and is a mean success rate.
        success: success rates, the same shape.

    Returns:
        Shape (B,).
    """
    order = np.argsort(calls, axis=0, kind="stable")
    x, y = np.take_along_axis(calls, order, axis=0), np.take_along_axis(success, order, axis=0)
    return np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2, axis=0)


def cost_area(cost: Floats, success: Floats, ends: tuple[int, int]) -> Floats:
    """Area under success over cost, from the small model alone to the teacher alone, as a mean success rate in [0, 1].

    A point that costs more than the teacher alone counts as the teacher alone, which is to be had for less; likewise at
    the other end.

    Args:
        cost: mean cost of an episode at each point, shape (points, B).
        success: success rates, the same shape.
        ends: rows of the small model alone and of the teacher alone.

    Returns:
        Shape (B,); NaN where the teacher alone does not cost more than the small model alone.
    """
    return area(*_between(cost, success, ends))


def success_at(cost: Floats, success: Floats, ends: tuple[int, int], place: float) -> Floats:
    """Success at one place between the costs of the small model alone (0) and of the teacher alone (1).

    Linear between the neighbouring points: what lots drawn between two thresholds would have.

    Args:
        cost: mean cost of an episode at each point, shape (points, B).
        success: success rates, the same shape.
        ends: rows of the small model alone and of the teacher alone.
        place: in [0, 1].

    Returns:
        Shape (B,); NaN where the teacher alone does not cost more than the small model alone.
    """
    x, y = _between(cost, success, ends)
    order = np.argsort(x, axis=0, kind="stable")
    x, y = np.take_along_axis(x, order, axis=0), np.take_along_axis(y, order, axis=0)
    right = np.clip((x <= place).sum(axis=0), 1, len(x) - 1)[None]
    (x0, x1), (y0, y1) = ([np.take_along_axis(table, at, axis=0)[0] for at in (right - 1, right)] for table in (x, y))
    share = np.divide(place - x0, x1 - x0, where=x1 > x0, out=np.ones_like(x0))
    return np.where(np.isnan(x).any(axis=0), np.nan, y0 + share * (y1 - y0))


def _between(cost: Floats, success: Floats, ends: tuple[int, int]) -> tuple[Floats, Floats]:
    """Costs as places between the ends', and success, where a point beyond an end counts as that end."""
    low, high = cost[ends[0]], cost[ends[1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.where(high > low, (cost - low) / (high - low), np.nan)
    y = np.where(x <= 0, success[ends[0]], np.where(x >= 1, success[ends[1]], success))
    return np.clip(x, 0.0, 1.0), y


def area_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of :func:`compare_areas`, corrected, as ``frontier_areas.csv`` has them."""
    return pd.DataFrame(rows).reindex(columns=AREA_COLUMNS)


def compare_areas(
    frames: Frames, analysis: Analysis, reference: str = "r2v"
) -> tuple[list[dict[str, Any]], list[Contrast]]:
    """The areas under each rule's curve, and how much larger the reference's are, with intervals and tests.

    ``equal_cost_success`` is the curve's success at the cost that the reference came to at its calibrated threshold
    (``equal_cost``, units an episode), where that was played. Intervals are paired: every rule is recomputed on the
    same draws. Tests swap the two rules on whole templates (:func:`area_flips`). Empty without a sweep or without its
    ends. ``cost_area`` is the one to go by: a share of calls falls when an agent dithers, its cost does not.

    Returns:
        A row a rule, and its differences, whose correction and verdict are still to be written into the rows.
    """
    tallies = make_tallies(frames)
    metrics = metric_functions(analysis.cvar_alpha)
    rows: list[dict[str, Any]] = []
    contrasts: list[Contrast] = []
    for condition, curves in swept_curves(tallies).items():
        by_seed = tallies[ENDS[0], condition]
        resamples = resamples_for(by_seed, analysis)
        spent, place = _played(tallies.get((reference, condition)), [tallies[end, condition] for end in ENDS])
        found = {rule: _areas(list(curve.values()), metrics, resamples, place) for rule, curve in curves.items()}
        n_tasks = len({task for tally in by_seed.values() for task in tally.tasks})
        for rule, areas in found.items():
            row: dict[str, Any] = {"rule": rule, "condition": condition, "n_tasks": n_tasks}
            row |= {"n_points": len(curves[rule]), "equal_cost": spent}
            compared = rule != reference and reference in found
            tests = area_flips(curves[reference], curves[rule], place) if compared else {}
            for name, (value, draws) in areas.items():
                row[name] = value
                row[f"{name}_ci"] = format_interval(*interval(value, draws, resamples, bounds=(0.0, 1.0)))
                if compared:
                    best, best_draws = found[reference][name]
                    lead, start = best - value, PREFIXES[name]
                    low, high = interval(lead, best_draws - draws, resamples, bounds=(-1.0, 1.0))
                    row[f"{start}difference"] = lead
                    row[f"{start}difference_ci"] = format_interval(low, high)
                    row[f"{start}p"] = tests[name]
                    delta = Estimate(lead, low, high)
                    contrasts.append(Contrast(row, delta, tests[name], f"{start}p_holm", f"{start}verdict"))
            rows.append(row)
    return rows, contrasts


Curve = dict[str, dict[int, Tally]]
"""Point (share, or an end's name) → training seed → sums; the ends first."""


def swept_curves(tallies: Tallies) -> dict[str, dict[str, Curve]]:
    """Condition → rule → its curve, in the order of the rules; only where thresholds and both ends were played."""
    found: dict[str, dict[str, Curve]] = {}
    for condition in sorted({condition for _, condition in tallies}):
        rules = sorted({rule_of(m) for m, c in tallies if "@" in m and c == condition}, key=method_rank)
        if not rules or any((end, condition) not in tallies for end in ENDS):
            continue
        for rule in rules:
            swept = sorted(m for m, c in tallies if c == condition and "@" in m and rule_of(m) == rule)
            points = {m.partition("@")[2] or m: tallies[m, condition] for m in (*ENDS, *swept)}
            found.setdefault(condition, {})[rule] = points
    return found


def _played(reference: dict[int, Tally] | None, ends: list[dict[int, Tally]]) -> tuple[float, float | None]:
    """The cost that the reference came to, and its place between the ends' costs; none where it was not played."""
    if reference is None:
        return np.nan, None
    spent, low, high = (
        float(np.mean([tally.sums["cost"].sum() / tally.episodes.sum() for tally in one.values()]))
        for one in (reference, *ends)
    )
    return spent, float(np.clip((spent - low) / (high - low), 0.0, 1.0)) if high > low else None


def _areas(
    points: list[dict[int, Tally]], metrics: dict[str, Metric], resamples: Resamples, place: float | None
) -> dict[str, tuple[float, Floats]]:
    """What is computed from a curve, on the data and on the resamples."""
    columns = (points_of(points, metrics[name], resamples) for name in ("llm_call_rate", "avg_cost", "success_rate"))
    once, drawn = (_computed(calls, cost, success, place) for calls, cost, success in zip(*columns, strict=True))
    return {name: (float(once[name][0]), drawn[name]) for name in once}


def points_of(points: list[dict[int, Tally]], metric: Metric, resamples: Resamples) -> tuple[Floats, Floats]:
    """A metric at each point of a curve, averaged over partition seeds: on the data and on the resamples.

    Returns:
        Shapes (points, 1) and (points, 4, B).
    """
    made = [resampled(point, metric, resamples) for point in points]
    return np.array([[values.mean()] for values, _ in made]), np.stack([draws for _, draws in made])


def _computed(calls: Floats, cost: Floats, success: Floats, place: float | None) -> dict[str, Floats]:
    """Everything that is computed from a curve whose first points are the ends; each of shape (B,)."""
    ends = (0, 1)
    found = {"area": area(calls, success), "cost_area": cost_area(cost, success, ends)}
    return found if place is None else found | {"equal_cost_success": success_at(cost, success, ends, place)}


def area_flips(first: Curve, second: Curve, place: float | None = None) -> dict[str, float]:
    """Two-sided p-values of "the two rules are exchangeable within each template", for all that curves are compared by.

    As in :func:`~r2v_core.evaluation.statistics.sign_flip`: under that hypothesis a template may as well have come out
    with the two rules swapped, at all shares and in all worlds. Areas are computed anew from swapped templates' sums.

    Args:
        first: one rule's curve.
        second: the other's, on the same tasks, with the same ends.
        place: see :func:`success_at`.

    Returns:
        Key of :data:`PREFIXES` → p; NaN unless both were swept at the same shares, point for point.
    """
    if list(first) != list(second):
        return dict.fromkeys(PREFIXES, np.nan)
    templates = sorted({name for tally in first[ENDS[0]].values() for name in tally.templates})
    signs = flips(len(templates), rng("sign flips of areas"))
    column = {name: i for i, name in enumerate(templates)}
    made: list[Floats] = []
    for seed, end in first[ENDS[0]].items():
        a, b = (np.stack([_sums(point[seed]) for point in curve.values()]) for curve in (first, second))
        swapped = np.einsum(
            "ft,pqt->fpq", signs[:, [column[name] for name in end.templates]], (a - b) / 2, optimize=True
        )
        total = (a + b).sum(axis=-1) / 2
        made.append(np.stack([total + swapped, total - swapped]))
    with np.errstate(invalid="ignore", divide="ignore"):
        calls, cost, success = (
            np.mean([sums[..., above] / sums[..., below] for sums in made], axis=0).transpose(2, 0, 1)
            for above, below in ((0, 1), (2, 3), (4, 3))
        )
    mine, theirs = (_computed(calls[:, side], cost[:, side], success[:, side], place) for side in (0, 1))
    return {name: flip_p(mine[name] - theirs[name]) for name in mine}


def _sums(tally: Tally) -> Floats:
    """Teacher calls, steps, cost, episodes and successes of each task; shape (5, tasks)."""
    cells = (*(tally.sums[name] for name in ("teacher_calls", "n_steps", "cost")), tally.episodes, tally.success)
    return np.stack([cell.sum(axis=1) for cell in cells])
