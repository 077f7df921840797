"""Does a risk score tell failing actions from others? The area under the ROC curve, with intervals over templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import AUC, ScoredSteps, Tally, tally_of_steps
from r2v_core.evaluation.resampling import draw
from r2v_core.evaluation.statistics import Estimate, difference, estimate

Floats = NDArray[np.float64]


def scored(steps: pd.DataFrame, score: ArrayLike, templates: Mapping[str, str], worlds: bool) -> Tally:
    """Steps and one score of each, as sums that :data:`~r2v_core.evaluation.metrics.AUC` is computed from.

    Args:
        steps: columns ``task_id, z, label``; labels in [0, 1], none missing.
        score: shape (n,), higher where failure is more likely; any scale.
        templates: task → its template, of all tasks that were played.
        worlds: whether a z is a world that tasks share.

    Raises:
        R2VError: unless there is one finite score for each step.
    """
    value = np.asarray(score, dtype=float).ravel()
    if value.shape != (len(steps),) or not np.isfinite(value).all():
        raise R2VError(f"an AUC needs one finite score for each step, got {value.size} for {len(steps)} steps")
    tasks, zs = tuple(sorted(templates)), tuple(sorted({int(z) for z in steps["z"]}))
    owner = steps["task_id"].map({task: i for i, task in enumerate(tasks)}).to_numpy(dtype=int)
    met = steps["z"].map({z: i for i, z in enumerate(zs)}).to_numpy(dtype=int)
    label = steps["label"].to_numpy(dtype=float)
    return tally_of_steps(
        tasks, tuple(templates[task] for task in tasks), zs, worlds, ScoredSteps(owner, met, value, label)
    )


def auc_estimates(
    scores: Mapping[str, ArrayLike],
    labels: ArrayLike,
    templates: Sequence[str],
    reference: str = "r2v",
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> dict[str, tuple[Estimate, Estimate | None]]:
    """AUC of several scores of the same steps, and how much larger the reference's is; whole templates are resampled.

    Args:
        scores: name → shape (n,), higher where the label is more likely to be 1.
        labels: shape (n,), in [0, 1].
        templates: of each step.
        reference: a key of ``scores``.
        n_resamples: draws.
        confidence: coverage of the intervals.

    Returns:
        Name → its AUC, and reference − its AUC (paired; None for the reference itself). NaN where labels are all alike.

    Raises:
        R2VError: if lengths differ or a score is not finite.
    """
    names = [str(name) for name in templates]
    steps = pd.DataFrame({"task_id": names, "z": 0, "label": np.asarray(labels, dtype=float)})
    made = {name: {0: scored(steps, score, {t: t for t in names}, worlds=False)} for name, score in scores.items()}
    drawn = draw({0: sorted(set(names))}, {0: ()}, n_resamples, confidence, rng("bootstrap over templates"))
    mine = made[reference]
    return {
        name: (estimate(one, AUC, drawn), None if name == reference else difference(mine, one, AUC, drawn))
        for name, one in made.items()
    }
