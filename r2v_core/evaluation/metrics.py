"""The metrics of docs/method.md, as pure functions.

Two layers: functions on success rates per perturbation seed, and :class:`Tally`, the sums by task and perturbation
seed that every reported metric is a function of. A metric takes weights of both, so that the point estimate (all
weights 1) and each bootstrap resample (how often each was drawn) are the same computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from r2v_core.errors import R2VError
from r2v_core.evaluation.adjusted import dealt_anew, incomplete, world_rates
from r2v_core.evaluation.calibration import N_BINS, bin_index
from r2v_core.evaluation.frame import TOKENS
from r2v_core.evaluation.scores import debiased_error, weighted_auc

Floats = NDArray[np.float64]


def cvar_failure(rates: ArrayLike, alpha: float) -> Floats:
    """CVaR_α of failure: the mean of 1 − rate over the worst ⌈α·|Z|⌉ perturbation seeds.

    Args:
        rates: success rate of each seed, shape (..., |Z|).
        alpha: share of seeds in the tail, in (0, 1]; 1 gives the mean failure rate.

    Returns:
        Shape (...).

    Raises:
        R2VError: if there are no seeds or alpha is out of range.
    """
    failures = 1.0 - np.asarray(rates, dtype=float)
    if failures.ndim == 0 or failures.shape[-1] == 0 or not 0 < alpha <= 1:
        raise R2VError(f"CVaR needs at least one seed and alpha in (0, 1], got alpha {alpha}")
    tail = worst_count(failures.shape[-1], alpha)
    worst: Floats = np.sort(failures, axis=-1)[..., -tail:].mean(axis=-1)
    return worst


def cvar_failure_null(tally: Tally, alpha: float, random: np.random.Generator, repeats: int = 500) -> float:
    """CVaR_α of failure that so few tasks would show if no world were worse than another.

    Each task's outcomes are dealt to the worlds at random, ``repeats`` times; the mean CVaR of that. Tasks keep their
    own failure rates, worlds lose theirs: what ``cvar_failure`` exceeds this by is what worlds have in common.
    """
    order = dealt_anew(tally.episodes > 0, random, repeats)
    success, episodes = (np.take_along_axis(cells[None], order, axis=2) for cells in (tally.success, tally.episodes))
    if incomplete(tally.episodes):
        once = np.ones((1, len(tally.tasks)))
        rates = np.stack([world_rates(*dealt, once)[0] for dealt in zip(success, episodes, strict=True)])
    else:  # the same, for all repeats in one go
        rates = success.sum(axis=1) / episodes.sum(axis=1)
    return float(cvar_failure(rates, alpha).mean())


def worst_count(n_seeds: int, alpha: float) -> int:
    """⌈α·n⌉, safe against 0.07 · 100 = 7.000000000000001."""
    return max(1, math.ceil(round(alpha * n_seeds, 9)))


def worst_seed(rates: ArrayLike) -> Floats:
    """Success rate of the worst perturbation seed; shape (..., |Z|) to (...)."""
    worst: Floats = np.min(np.asarray(rates, dtype=float), axis=-1)
    return worst


def bottom_share(rates: ArrayLike, share: float = 0.1) -> Floats:
    """Mean success rate over the worst ⌈share·|Z|⌉ seeds; shape (..., |Z|) to (...)."""
    return 1.0 - cvar_failure(rates, share)


SUMMED = (
    "success",
    "n_steps",
    "teacher_calls",
    "cost",
    "cost_usd",
    "tokens",
    "latency",
    "injected",
    "safety_failure",
    "error",
    "flagged",
    *TOKENS,
)


@dataclass(frozen=True)
class ScoredSteps:
    """Labelled steps with a risk score of any scale; all of shape (n,)."""

    owner: NDArray[np.intp]
    """Row of the step's task."""
    met: NDArray[np.intp]
    """Column of its perturbation seed."""
    score: Floats
    label: Floats
    """In [0, 1]; a label t is a failure of weight t and none of weight 1 − t."""


@dataclass(frozen=True)
class Tally:
    """Sums over the episodes (and labelled steps) of one method, condition and partition seed."""

    tasks: tuple[str, ...]
    templates: tuple[str, ...]
    """Of each task."""
    zs: tuple[int, ...]
    worlds: bool
    """Whether a z is a world that tasks share; a replicate of a clean task is none."""
    episodes: Floats
    """Number of episodes, shape (tasks, |Z|)."""
    sums: dict[str, Floats]
    """Sum of each column of :data:`SUMMED`, shape (tasks, |Z|)."""
    labelled: Floats
    """Number of steps with both a probability and a label, shape (tasks, |Z|)."""
    squares: Floats
    """Σ (probability − label)² over labelled steps, shape (tasks, |Z|)."""
    bins: Floats
    """Labelled steps by probability bin: count, Σ probability, Σ label; shape (tasks, bins, 3)."""
    scored: ScoredSteps | None = None
    """Single steps, for what is no sum."""

    @property
    def success(self) -> Floats:
        """Number of successes, shape (tasks, |Z|)."""
        return self.sums["success"]

    @property
    def n_labelled(self) -> int:
        """Steps with both a probability and a label."""
        return int(self.labelled.sum())


def tally(episodes: pd.DataFrame, steps: pd.DataFrame) -> Tally:
    """Sum one method's episodes by task and perturbation seed.

    Args:
        episodes: rows of one (method, condition, partition seed) in the form of ``frame.EPISODE_COLUMNS``.
        steps: the same for ``frame.STEP_COLUMNS``; may be empty.

    Raises:
        R2VError: if there are no episodes, or a labelled step's probability is outside [0, 1].
    """
    if episodes.empty:
        raise R2VError("no episodes to compute metrics from; materialise an evaluation first")
    tasks = tuple(sorted(episodes["task_id"].unique()))
    zs = tuple(sorted(int(z) for z in episodes["z"].unique()))
    row = {task: i for i, task in enumerate(tasks)}
    column = {z: i for i, z in enumerate(zs)}
    at = (episodes["task_id"].map(row).to_numpy(), episodes["z"].map(column).to_numpy())
    shape = len(tasks), len(zs)
    count = _added(shape, at, np.ones(len(episodes)))
    sums = {name: _added(shape, at, episodes[name].to_numpy(dtype=float)) for name in SUMMED}
    known = steps[steps["probability"].notna() & steps["label"].notna()]
    p, y = known["probability"].to_numpy(dtype=float), known["label"].to_numpy(dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise R2VError(
            f"{known['method'].iloc[0]}: a risk score outside [0, 1] is not a probability, so it has no calibration"
        )
    owner = known["task_id"].map(row).to_numpy(dtype=int)
    met = owner, known["z"].map(column).to_numpy(dtype=int)
    bins = np.zeros((len(tasks), N_BINS, 3))
    np.add.at(bins, (owner, bin_index(p)), np.stack([np.ones_like(p), p, y], axis=-1))
    template_of = dict(zip(episodes["task_id"], episodes["template_id"], strict=True))
    templates = tuple(str(template_of[task]) for task in tasks)
    labelled, squares = _added(shape, met, np.ones_like(p)), _added(shape, met, (p - y) ** 2)
    worlds = bool((episodes["condition"] != "clean").all())
    return Tally(tasks, templates, zs, worlds, count, sums, labelled, squares, bins)


def _added(shape: tuple[int, int], at: tuple[Any, Any], values: Floats) -> Floats:
    """``values`` summed where they belong in a table of that shape."""
    cells = np.zeros(shape)
    np.add.at(cells, at, values)
    return cells


def tally_of_steps(
    tasks: tuple[str, ...], templates: tuple[str, ...], zs: tuple[int, ...], worlds: bool, scored: ScoredSteps
) -> Tally:
    """A tally of steps alone: no episode is counted in it."""
    shape = len(tasks), len(zs)
    nothing = np.zeros(shape)
    labelled = _added(shape, (scored.owner, scored.met), np.ones_like(scored.score))
    return Tally(tasks, templates, zs, worlds, nothing, {}, labelled, nothing, np.zeros((shape[0], N_BINS, 3)), scored)


Compute = Callable[[Tally, Floats, Floats | None], Floats]
"""(tally, weights of tasks of shape (B, tasks), weights of perturbation seeds of shape (B, |Z|), None for all alike) →
values of shape (B,), NaN where there is nothing to stand on. One row of weights goes with any number of the other's."""


@dataclass(frozen=True)
class Metric:
    """A reported number and what its statistics need to know about it."""

    compute: Compute
    share: bool = False
    """Able to sit at a bound without any spread, as a share of episodes is."""
    biased: bool = False
    """Noise moves it one way (a minimum, a tail mean, a sum of absolute gaps), so a resample of the data overshoots."""
    top: float = math.inf
    """The largest value there can be."""
    bottom: float = 0.0
    """The smallest."""
    given_worlds: bool = False
    """It isn't kept apart by perturbation seed, so its interval takes these as they are; so do ``biased`` ones."""
    over: str = "episodes"
    """What it is made from: 'episodes', 'seeds' (nothing to say without perturbation seeds), 'labelled' steps."""


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Floats = above / below
    return quotient


def _drawn(cells: Floats, tasks: Floats, worlds: Floats | None) -> Floats:
    """Cells of shape (tasks, |Z|) summed, each as often as its task times its perturbation seed was drawn."""
    total: Floats = tasks @ cells.sum(axis=1) if worlds is None else ((tasks @ cells) * worlds).sum(axis=1)
    return total


def _per(column: str, below: str = "") -> Compute:
    def compute(tally: Tally, tasks: Floats, worlds: Floats | None) -> Floats:
        denominator = tally.sums[below] if below else tally.episodes
        return _ratio(_drawn(tally.sums[column], tasks, worlds), _drawn(denominator, tasks, worlds))

    return compute


def seed_rates(tally: Tally, tasks: Floats) -> Floats:
    """Success rate of each perturbation seed, adjusted for its tasks where they met different ones; shape (B, |Z|).

    A seed that no drawn task met is NaN.
    """
    return world_rates(tally.success, tally.episodes, tasks)


def _ece(tally: Tally, tasks: Floats, worlds: Floats | None) -> Floats:
    """Of all perturbation seeds; bins aren't kept apart by them (``biased``)."""
    sums = np.tensordot(tasks, tally.bins, axes=1)
    return _ratio(np.abs(sums[..., 2] - sums[..., 1]).sum(axis=-1), sums[..., 0].sum(axis=-1))


def _ece_debiased(tally: Tally, tasks: Floats, worlds: Floats | None) -> Floats:
    """Of all perturbation seeds; bins aren't kept apart by them (``given_worlds``)."""
    _, first, index = np.unique(tally.templates, return_index=True, return_inverse=True)
    bins = np.zeros((len(first), *tally.bins.shape[1:]))
    np.add.at(bins, index, tally.bins)
    return debiased_error(bins, tasks[:, first])  # tasks of one template are drawn together


def _auc(tally: Tally, tasks: Floats, worlds: Floats | None) -> Floats:
    """NaN where the drawn labels are all alike."""
    steps = tally.scored
    assert steps is not None
    drawn = np.ones((1, len(tally.zs))) if worlds is None else worlds
    tasks, drawn = np.broadcast_arrays(tasks[:, :, None], drawn[:, None, :])
    return weighted_auc(
        steps.score,
        steps.label,
        len(tasks),
        lambda part: tasks[part, steps.owner, steps.met] * drawn[part, steps.owner, steps.met],
    )


def _brier(tally: Tally, tasks: Floats, worlds: Floats | None) -> Floats:
    return _ratio(_drawn(tally.squares, tasks, worlds), _drawn(tally.labelled, tasks, worlds))


def metric_functions(alpha: float) -> dict[str, Metric]:
    """Every reported metric by its column name; ``alpha`` is the tail share of ``cvar_failure``.

    Averages are per episode: ``avg_cost`` in units, ``avg_latency`` in seconds, ``tokens`` in and out together of small
    model and teacher, and by who read or generated them.
    ``llm_call_rate`` is the share of all steps that the teacher played: a method that dithers has more steps and lowers
    it for free, so ``avg_teacher_calls`` stands beside it.
    """
    return {
        "success_rate": Metric(_per("success"), share=True, top=1.0),
        "worst_seed_sr": _over_seeds(worst_seed),
        "cvar_failure": _over_seeds(lambda rates: cvar_failure(rates, alpha)),
        "bottom_10_sr": _over_seeds(lambda rates: bottom_share(rates, 0.1)),
        "avg_cost": Metric(_per("cost")),
        "avg_latency": Metric(_per("latency")),
        "llm_call_rate": Metric(_per("teacher_calls", "n_steps"), top=1.0),
        "safety_failure_rate": Metric(_per("safety_failure"), share=True, top=1.0),
        "ece": Metric(_ece, biased=True, top=1.0, over="labelled"),
        "ece_debiased": Metric(_ece_debiased, top=1.0, bottom=-1.0, given_worlds=True, over="labelled"),
        "brier": Metric(_brier, top=1.0, over="labelled"),
        "avg_steps": Metric(_per("n_steps")),
        "avg_teacher_calls": Metric(_per("teacher_calls")),
        "cost_usd": Metric(_per("cost_usd")),
        "tokens": Metric(_per("tokens")),
        **{name: Metric(_per(name)) for name in TOKENS},
    }


AUC = Metric(_auc, share=True, top=1.0, over="labelled")
"""Of the tally's scored steps."""


def _over_seeds(tail: Callable[[Floats], Floats]) -> Metric:
    def compute(tally: Tally, tasks: Floats, worlds: Floats | None) -> Floats:
        return tail(seed_rates(tally, tasks))

    return Metric(compute, share=True, biased=True, top=1.0, over="seeds")
