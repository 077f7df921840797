"""The router's constrained objective: expected cost, and the tail risk of failure over perturbation seeds.

The objective is  E[cost] + λ (CVaR_α(1 − S_z) − ε) + w · Brier  (docs/method.md).  A gradient needs S_z, the success
rate under perturbation seed z of an agent that escalates with probability d_t at step t, as a smooth function of d.
Replaying every episode at each gradient step is not possible, so S_z is a *surrogate* made of what was logged and
measured. It serves training and calibration alone; every reported success comes from a live environment.

For a logged episode e with steps t = 1..T:

1. A step stays wrong with probability  u_t = (1 − d_t) · y_t + d_t · q.  y_t says whether the small model's chosen
   action fails; q is the teacher's own failure rate, measured on the logged steps that the teacher played (it is never
   assumed to succeed).
2. Share of wrong steps, smoothed to stay inside (0, 1):  ū_e = (Σ_t u_t + δ) / (T + 2δ),  δ = 0.1.
3. How a share of wrong steps turns into a failed episode is measured too: failure_e = σ(a + b · logit ū_e), with a and
   b fitted to the verdicts of the logged rollouts (:func:`fit_failure_model`). With few rollouts the fit stays near
   a = 0, b = 1, where failure_e = ū_e.
4. 1 − S_z is the mean of failure_e over the episodes under z; CVaR_α the mean over the worst ⌈α|Z|⌉ seeds of the whole
   set (Rockafellar and Uryasev 2000, for a discrete uniform distribution over seeds).

With labels of benefit, y_t is the probability of success that is forgone by not calling at step t, and q is 0: a call
forgoes nothing. The steps of an episode are then those at which the benefit was measured.

What it can't see: after an escalation the episode would have gone elsewhere than the log did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_expit
from torch import Tensor

from r2v_core.agent.features import feature_matrix
from r2v_core.evaluation.metrics import worst_count
from r2v_core.models.labels import BENEFIT
from r2v_core.models.router import RouterRow, label_name

SMOOTHING = 0.1
"""δ above: pseudo-steps of each kind."""


@dataclass(frozen=True)
class Rollouts:
    """Logged steps as tensors: n steps of E episodes under Z perturbation seeds."""

    x: Tensor
    """(n, F) float32, raw features."""
    label: Tensor
    """(n,) float32 in [0, 1]: y above."""
    episode: Tensor
    """(n,) int64 in [0, E)."""
    lengths: Tensor
    """(E,) float32, steps per episode."""
    seed: Tensor
    """(E,) int64 in [0, Z)."""
    episodes_per_seed: Tensor
    """(Z,) float32."""


@dataclass(frozen=True)
class FailureModel:
    """Constants of the surrogate: the teacher's failure rate q and the link (a, b)."""

    teacher_failure: float
    intercept: float
    slope: float


def make_rollouts(rows: Sequence[RouterRow], names: Sequence[str]) -> Rollouts:
    """Tensors of logged steps, with the named features."""
    episodes = {key: i for i, key in enumerate(dict.fromkeys((row.z, row.episode_id) for row in rows))}
    seeds = {z: i for i, z in enumerate(dict.fromkeys(row.z for row in rows))}
    episode = torch.tensor([episodes[row.z, row.episode_id] for row in rows])
    seed = torch.tensor([seeds[z] for z, _ in episodes])
    return Rollouts(
        x=torch.from_numpy(feature_matrix([row.features for row in rows], names)),
        label=torch.tensor([row.label for row in rows]),
        episode=episode,
        lengths=torch.bincount(episode).float(),
        seed=seed,
        episodes_per_seed=torch.bincount(seed).float(),
    )


def fit_failure_model(rows: Sequence[RouterRow]) -> FailureModel:
    """Measure the surrogate's constants on logged rollouts.

    q is the Jeffreys estimate (failures + ½) / (n + 1) over the teacher's steps with a known outcome, so that no data
    means ½ and not a perfect teacher; for labels of benefit it is 0 by definition. The link is the maximum a posteriori
    of a logistic regression of the verdict on logit ū under a ~ N(0, 2²), ln b ~ N(0, 1); b > 0, so more wrong steps
    never mean less failure.
    """
    measured = [row.failed for row in rows if row.actor == "teacher" and row.failed is not None]
    q = 0.0 if label_name(rows) == BENEFIT else (sum(measured) + 0.5) / (len(measured) + 1)
    wrong: dict[tuple[int | None, str], list[float]] = {}
    failed: dict[tuple[int | None, str], bool] = {}
    for row in rows:
        played = row.failed if row.failed is not None else (row.label if row.actor == "slm" else q)
        wrong.setdefault((row.z, row.episode_id), []).append(float(played))
        failed[row.z, row.episode_id] = not row.success
    share = np.array([(sum(w) + SMOOTHING) / (len(w) + 2 * SMOOTHING) for w in wrong.values()])
    x = np.log(share) - np.log1p(-share)
    y = np.array([failed[key] for key in wrong], dtype=float)

    def loss(theta: np.ndarray) -> float:
        logits = theta[0] + np.exp(theta[1]) * x
        fit = np.sum(y * log_expit(logits) + (1 - y) * log_expit(-logits))
        return float(theta[0] ** 2 / 8 + theta[1] ** 2 / 2 - fit)

    best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-20, 20), (-4, 4)])
    return FailureModel(float(q), float(best.x[0]), float(np.exp(best.x[1])))


def seed_failures(escalate: Tensor, rollouts: Rollouts, model: FailureModel) -> Tensor:
    """Surrogate failure rate of each perturbation seed, 1 − S_z.

    Args:
        escalate: probability (or 0/1 decision) of an escalation at each step, shape (..., n).

    Returns:
        Shape (..., Z), differentiable in ``escalate``.
    """
    wrong = (1 - escalate) * rollouts.label + escalate * model.teacher_failure
    batch = wrong.shape[:-1]
    summed = wrong.new_zeros(*batch, len(rollouts.lengths)).index_add(-1, rollouts.episode, wrong)
    share = (summed + SMOOTHING) / (rollouts.lengths + 2 * SMOOTHING)
    failure = torch.sigmoid(model.intercept + model.slope * torch.logit(share))
    total = failure.new_zeros(*batch, len(rollouts.episodes_per_seed)).index_add(-1, rollouts.seed, failure)
    return total / rollouts.episodes_per_seed


def cvar(failures: Tensor, alpha: float) -> Tensor:
    """Mean of the worst ⌈α|Z|⌉ of failure rates of shape (..., Z); differentiable, shape (...).

    The same figure as :func:`r2v_core.evaluation.metrics.cvar_failure` of the success rates.
    """
    return failures.topk(worst_count(failures.shape[-1], alpha), dim=-1).values.mean(dim=-1)


def dual_ascent(multiplier: float, violation: float, learning_rate: float) -> float:
    """λ ← max(0, λ + η · (CVaR − ε)): projected gradient ascent on the Lagrange multiplier."""
    return max(0.0, multiplier + learning_rate * violation)
