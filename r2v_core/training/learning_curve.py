"""How good the router's probability gets with the number of templates that it learns from.

For each size m, some subsets of m router templates: the same scorer is trained on all steps of a subset, and its level
and slope are cross-fitted within the subset, as the stage ``train_router`` does with all. What comes out is judged on
the steps of the validation templates, which no training sees.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from r2v_core.agent.rules.base import RoutingRule
from r2v_core.agent.rules.baselines import LOGPROB
from r2v_core.agent.rules.scored import ENTROPY
from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import auc, brier_score, fit_level_and_slope, log_loss, two_classes
from r2v_core.evaluation.scores import debiased_calibration_error
from r2v_core.models.router import RouterRow, Scorer
from r2v_core.training.scorers import SCORERS, Fitting, cross_fitted

SMALLEST = 10
"""Templates of the smallest subset; each further size is twice the one before, and the last is all."""
METRICS = ("auc", "log_loss", "brier", "ece_debiased")
SINGLE = (ENTROPY, LOGPROB)
"""Rules of one number a step, which learn nothing but level and slope: flat lines to be above."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """What subsets of one size come to on the validation steps."""

    name: str
    """A scorer, or a rule of one number a step."""
    templates: int
    steps: float
    """Mean number of steps learnt from."""
    subsets: int
    mean: dict[str, float]
    """Of each of :data:`METRICS` over the subsets; NaN for an AUC of labels that are all alike."""
    spread: dict[str, float]
    """Standard deviation between subsets (n − 1); NaN for a single one."""


def sizes(templates: int) -> list[int]:
    """10, 20, 40, … and all.

    Raises:
        R2VError: if there are no more than the smallest.
    """
    if templates <= SMALLEST:
        raise R2VError(
            f"learning curve: {templates} router templates with labelled steps, the smallest subset has {SMALLEST}; "
            "raise benchmark.splits.router and materialise 'router_features' again"
        )
    found = [SMALLEST]
    while found[-1] * 2 < templates:
        found.append(found[-1] * 2)
    return [*found, templates]


def learning_curve(
    rows: Sequence[RouterRow],
    validation: Sequence[RouterRow],
    scorer: str,
    fitting: Fitting,
    subsets: int,
    tell: Callable[[str], None],
) -> Iterator[Point]:
    """Points of the curve from the smallest size to all templates, then the flat lines.

    Subset i of a size is contained in subset i of the next: the templates of one random order, cut where the size ends.

    Args:
        rows: logged steps of the router split, of both labels.
        validation: logged steps of the validation split.
        scorer: a key of :data:`~r2v_core.training.scorers.SCORERS`.
        fitting: how to train; its seed orders the templates, too.
        subsets: of each size but the last, which has one.
        tell: told each size before it is trained.

    Raises:
        R2VError: if there are too few templates.
    """
    templates = sorted({row.template_id for row in rows})
    orders = [rng(fitting.seed, "learning curve", i).permutation(len(templates)) for i in range(subsets)]
    for size in sizes(len(templates)):
        chosen = [{templates[i] for i in order[:size]} for order in orders]
        parts = [[row for row in rows if row.template_id in names] for names in chosen]
        if size == len(templates):
            parts = [list(rows)]
        tell(f"{size} templates: training {scorer} on {len(parts)} subset{'s' * (len(parts) > 1)}")
        logits = (_learnt(part, validation, scorer, fitting) for part in parts)
        yield _point(scorer, size, parts, [_judge(found, validation) for found in logits])
    for rule in SINGLE:
        if (single := _single(rule, rows, validation)) is not None:
            yield _point(rule.name, len(templates), [rows], [_judge(single, validation)])


def _learnt(part: Sequence[RouterRow], validation: Sequence[RouterRow], name: str, fitting: Fitting) -> Floats:
    """Calibrated logits of the validation steps, shape (n,); a constant where a subset's labels are all alike."""
    label = _labels(part)
    if not two_classes(label):
        return np.full(len(validation), logit((label.sum() + 1) / (len(label) + 2)))
    cross = cross_fitted(part, SCORERS[name], fitting)
    slope, level = fit_level_and_slope(cross, label) if fitting.config.calibrated else (1.0, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        trained = Scorer(SCORERS[name](part, replace(fitting, directory=Path(folder), on_epoch=None)))
    return slope * trained.logits(fitting.x(validation)) + level


def _single(rule: RoutingRule, rows: Sequence[RouterRow], validation: Sequence[RouterRow]) -> Floats | None:
    """The same from a rule's score, level and slope fitted to all router steps; None where steps lack its feature."""
    assert rule.score is not None
    try:
        learnt, judged = ([rule.score(row.features) for row in part] for part in (rows, validation))
    except KeyError:
        return None
    slope, level = fit_level_and_slope(learnt, _labels(rows))
    return slope * np.array(judged) + level


def _judge(logits: Floats, validation: Sequence[RouterRow]) -> dict[str, float]:
    label, p = _labels(validation), expit(logits)
    return {
        "auc": auc(logits, label),
        "log_loss": log_loss(logits, label),
        "brier": brier_score(p, label),
        "ece_debiased": debiased_calibration_error(p, label, [row.template_id for row in validation]),
    }


def _point(name: str, size: int, parts: Sequence[Sequence[RouterRow]], found: Sequence[dict[str, float]]) -> Point:
    values = {metric: np.array([one[metric] for one in found]) for metric in METRICS}
    several = len(found) > 1
    return Point(
        name,
        size,
        float(np.mean([len(part) for part in parts])),
        len(found),
        {metric: float(column.mean()) for metric, column in values.items()},
        {metric: float(column.std(ddof=1)) if several else float("nan") for metric, column in values.items()},
    )


def _labels(rows: Sequence[RouterRow]) -> Floats:
    return np.array([row.label for row in rows], dtype=float)
