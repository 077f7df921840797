"""The metrics of docs/method.md, as pure functions.

Two layers: functions on success rates per perturbation seed, and :class:`Tally`, the per-task sums that every reported
metric is a function of. A metric takes task weights, so that the point estimate (all weights 1) and each bootstrap
resample (how often a task was drawn) are the same computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import N_BINS, bin_index

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
    cells = np.stack([tally.success, tally.episodes])
    found = []
    for _ in range(repeats):
        order = random.random(tally.success.shape).argsort(axis=1)
        success, episodes = np.take_along_axis(cells, order[None], axis=2).sum(axis=1)
        found.append(cvar_failure(_ratio(success, episodes), alpha))
    return float(np.mean(found))


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
)


@dataclass(frozen=True)
class Tally:
    """Sums over the episodes (and labelled steps) of one method, condition and partition seed, by task."""

    tasks: tuple[str, ...]
    templates: tuple[str, ...]
    """Of each task."""
    zs: tuple[int, ...]
    episodes: Floats
    """Number of episodes, shape (tasks, |Z|)."""
    success: Floats
    """Number of successes, shape (tasks, |Z|)."""
    sums: dict[str, Floats]
    """Sum of each column of :data:`SUMMED`, shape (tasks,)."""
    bins: Floats
    """Labelled steps by probability bin: count, Σ probability, Σ label; shape (tasks, bins, 3)."""
    squares: Floats
    """Σ (probability − label)² over labelled steps, shape (tasks,)."""

    @property
    def n_labelled(self) -> int:
        """Steps with both a probability and a label."""
        return int(self.bins[..., 0].sum())


def tally(episodes: pd.DataFrame, steps: pd.DataFrame) -> Tally:
    """Sum one method's episodes by task.

    Args:
        episodes: rows of one (method, condition, partition seed) in the form of ``frame.EPISODE_COLUMNS``.
        steps: the same for ``frame.STEP_COLUMNS``; may be empty.

    Raises:
        R2VError: if there are no episodes, or a labelled step's probability is outside [0, 1].
    """
    if episodes.empty:
        raise R2VError("no episodes to compute metrics from")
    tasks = tuple(sorted(episodes["task_id"].unique()))
    zs = tuple(sorted(int(z) for z in episodes["z"].unique()))
    row = {task: i for i, task in enumerate(tasks)}
    column = {z: i for i, z in enumerate(zs)}
    at = (episodes["task_id"].map(row).to_numpy(), episodes["z"].map(column).to_numpy())
    count, success = np.zeros((len(tasks), len(zs))), np.zeros((len(tasks), len(zs)))
    np.add.at(count, at, 1.0)
    np.add.at(success, at, episodes["success"].to_numpy(dtype=float))
    sums: dict[str, Floats] = {}
    for name in SUMMED:
        sums[name] = np.zeros(len(tasks))
        np.add.at(sums[name], at[0], episodes[name].to_numpy(dtype=float))
    known = steps[steps["probability"].notna() & steps["label"].notna()]
    p, y = known["probability"].to_numpy(dtype=float), known["label"].to_numpy(dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise R2VError(
            f"{known['method'].iloc[0]}: a risk score outside [0, 1] is no probability, so it has no calibration"
        )
    owner = known["task_id"].map(row).to_numpy(dtype=int)
    bins = np.zeros((len(tasks), N_BINS, 3))
    np.add.at(bins, (owner, bin_index(p)), np.stack([np.ones_like(p), p, y], axis=-1))
    squares = np.bincount(owner, weights=(p - y) ** 2, minlength=len(tasks)).astype(float)
    template_of = dict(zip(episodes["task_id"], episodes["template_id"], strict=True))
    templates = tuple(str(template_of[task]) for task in tasks)
    return Tally(tasks, templates, zs, count, success, sums, bins, squares)


Compute = Callable[[Tally, Floats], Floats]
"""(tally, weights of shape (B, tasks)) → values of shape (B,); NaN where there is nothing to stand on."""


@dataclass(frozen=True)
class Metric:
    """A reported number and what its statistics need to know about it."""

    compute: Compute
    share: bool = False
    """A share of episodes: in [0, 1], and able to sit at a bound without any spread."""
    biased: bool = False
    """Noise moves it one way (a minimum, a tail mean, a sum of absolute gaps), so a resample of the data overshoots."""
    over: str = "episodes"
    """What it is made from: 'episodes', 'seeds' (nothing to say without perturbation seeds), 'labelled' steps."""


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Floats = above / below
    return quotient


def _per(column: str, below: str = "") -> Compute:
    def compute(tally: Tally, weights: Floats) -> Floats:
        denominator = tally.sums[below] if below else tally.episodes.sum(axis=1)
        return _ratio(weights @ tally.sums[column], weights @ denominator)

    return compute


def seed_rates(tally: Tally, weights: Floats) -> Floats:
    """Success rate of each perturbation seed; shape (B, |Z|). A seed that no drawn task met is NaN."""
    return _ratio(weights @ tally.success, weights @ tally.episodes)


def _ece(tally: Tally, weights: Floats) -> Floats:
    sums = np.einsum("bt,tmk->bmk", weights, tally.bins)
    return _ratio(np.abs(sums[..., 2] - sums[..., 1]).sum(axis=-1), sums[..., 0].sum(axis=-1))


def _brier(tally: Tally, weights: Floats) -> Floats:
    return _ratio(weights @ tally.squares, weights @ tally.bins[..., 0].sum(axis=1))


def metric_functions(alpha: float) -> dict[str, Metric]:
    """Every reported metric by its column name; ``alpha`` is the tail share of ``cvar_failure``.

    Averages are per episode: ``avg_cost`` in units, ``avg_latency`` in seconds, ``tokens`` in and out together.
    ``llm_call_rate`` is the share of all steps that the teacher played: a method that dithers has more steps and lowers
    it for free, so ``avg_teacher_calls`` stands beside it.
    """
    return {
        "success_rate": Metric(_per("success"), share=True),
        "worst_seed_sr": _over_seeds(worst_seed),
        "cvar_failure": _over_seeds(lambda rates: cvar_failure(rates, alpha)),
        "bottom_10_sr": _over_seeds(lambda rates: bottom_share(rates, 0.1)),
        "avg_cost": Metric(_per("cost")),
        "avg_latency": Metric(_per("latency")),
        "llm_call_rate": Metric(_per("teacher_calls", "n_steps")),
        "safety_failure_rate": Metric(_per("safety_failure"), share=True),
        "ece": Metric(_ece, biased=True, over="labelled"),
        "brier": Metric(_brier, over="labelled"),
        "avg_steps": Metric(_per("n_steps")),
        "avg_teacher_calls": Metric(_per("teacher_calls")),
        "cost_usd": Metric(_per("cost_usd")),
        "tokens": Metric(_per("tokens")),
    }


def _over_seeds(tail: Callable[[Floats], Floats]) -> Metric:
    return Metric(lambda tally, weights: tail(seed_rates(tally, weights)), share=True, biased=True, over="seeds")
