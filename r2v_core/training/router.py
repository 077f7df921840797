"""Training the router: full-batch gradient descent on the Lagrangian, gradient ascent on its multiplier.

    minimise over the net and a cut τ   E[cost] + λ (CVaR_α(1 − S_z) − ε) + w · Brier      (docs/method.md)
    raise λ ≥ 0 by dual ascent

with r = σ(ℓ(f)) the net's probability, Brier = mean y(1 − r)² + (1 − y)r², and E[cost] = mean over the logged steps of
(cost_slm + d · cost_teacher) / cost_teacher, in units of one teacher step so that all terms are of order one. CVaR is
the surrogate of :mod:`r2v_core.training.lagrangian`.

The escalation probability d in cost and CVaR is not r itself. The deployed router escalates where r exceeds a
threshold, and d = σ((ℓ − τ) / s) is that decision made smooth, with τ trained beside the net (and replaced afterwards
by the threshold calibrated on validation). Were d = r, the cost alone would push every probability down by 1 / (2w)
from its calibrated value: for w ≤ ½ to the constant 0. This way τ takes up the trade between cost and
risk. What shift is left at the end is taken out of the net's last bias, so that the mean of r over the training steps
is the mean label; level and slope are fitted by cross-fitting afterwards (:mod:`r2v_core.training.scorers`).

The net has a few thousand weights and sees at most some ten thousand steps: it trains on one CPU thread, which is
faster here than moving data to an accelerator and gives the same bits in every run on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor, nn

from r2v_core.config.schema import AgentConfig, RouterConfig
from r2v_core.digest import derive_seed
from r2v_core.models.router import RouterNet
from r2v_core.runs import stopping
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.training.lagrangian import FailureModel, Rollouts, cvar, dual_ascent, seed_failures
from r2v_core.trajectory import Record

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "training_log.jsonl"
CHECKPOINT_EVERY = 25
"""Epochs between checkpoints."""
SHARPNESS = 0.5
"""s above, in logits: the width of the smoothed decision."""
CUT_RATE = 10.0
"""Learning rate of τ relative to the net's: a single number has farther to go than each of many weights."""
INITIAL_MULTIPLIER = 1.0
"""λ at the start: one unit of tail risk weighs as much as one teacher call a step."""


class Epoch(Record):
    """One line of the training log; all but λ are measured before the epoch's update."""

    epoch: int
    loss: float
    cost: float
    """Mean cost of a step in teacher steps."""
    brier: float
    cvar: float
    constraint: float
    """CVaR − ε; the bound holds where it is ≤ 0."""
    multiplier: float
    """λ after the update."""
    share: float
    """Mean escalation probability."""
    cut: float
    """σ(τ): the threshold on r that training works with."""


def train_net(
    rollouts: Rollouts,
    model: FailureModel,
    config: RouterConfig,
    agent: AgentConfig,
    seed: int,
    directory: Path,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[RouterNet, list[Epoch]]:
    """Train the net; write ``training_log.jsonl`` and, while at it, a checkpoint that a later call goes on from.

    A run that was killed and called again gives the same bits as one that was not. The caller deletes
    ``checkpoint.pt`` once the result is safe.

    Raises:
        Stopped: if the process was asked to end, with a checkpoint of the last epoch done.

    Args:
        rollouts: logged steps of the router split.
        model: the surrogate's measured constants.
        seed: of initial weights and dropout.
        directory: where log and checkpoint lie.
        on_epoch: called after each epoch.

    Returns:
        The net in eval mode with batch norm statistics of the final weights, and the log.
    """
    with deterministic(derive_seed(seed, "router")):
        net = RouterNet(rollouts.x.shape[1], list(config.hidden), config.dropout)
        net.standardise(rollouts.x)
        cut = nn.Parameter(torch.zeros(()))
        optimiser = torch.optim.AdamW(
            [
                {"params": list(net.parameters()), "weight_decay": config.weight_decay},
                {"params": [cut], "lr": CUT_RATE * config.learning_rate, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
        state: dict[str, Any] = {"epoch": 0, "multiplier": INITIAL_MULTIPLIER, "log": []}
        parts = {"net": net, "optimiser": optimiser}
        checkpoint = directory / CHECKPOINT_NAME
        if checkpoint.exists():
            state = _restore(checkpoint, parts, cut)
        log = [Epoch(**line) for line in state["log"]]
        path = directory / LOG_NAME
        path.unlink(missing_ok=True)
        with stopping.held(), JsonlStore(path, Epoch) as store:
            for line in log:
                store.append(line)
            for epoch in range(state["epoch"], config.epochs):
                line = _epoch(net, cut, optimiser, rollouts, model, config, agent, epoch, state)
                log.append(line)
                store.append(line)
                how = stopping.asked()
                if how is not None or (epoch + 1) % CHECKPOINT_EVERY == 0:
                    _save(checkpoint, parts, cut, epoch + 1, state["multiplier"], log)
                if on_epoch:
                    on_epoch(line)
                if how is not None:
                    raise stopping.Stopped(how, f"saved at epoch {epoch + 1} of {config.epochs}")
        settle_batch_norm(net, rollouts.x)
        _restore_level(net, rollouts)
    return net.eval(), log


def read_log(directory: Path) -> list[Epoch]:
    """The log of a training that has ended, one entry an epoch."""
    return list(JsonlStore(directory / LOG_NAME, Epoch))


def _epoch(
    net: RouterNet,
    cut: nn.Parameter,
    optimiser: torch.optim.Optimizer,
    rollouts: Rollouts,
    model: FailureModel,
    config: RouterConfig,
    agent: AgentConfig,
    epoch: int,
    state: dict[str, Any],
) -> Epoch:
    net.train()
    logits = net(rollouts.x)
    escalate = torch.sigmoid((logits - cut) / SHARPNESS)
    share = escalate.mean()
    cost = agent.cost_slm / agent.cost_teacher + share
    risk = cvar(seed_failures(escalate, rollouts, model), config.cvar_alpha)
    constraint = risk - config.cvar_epsilon
    label = rollouts.label
    brier = ((torch.sigmoid(logits) - label).square() + label * (1 - label)).mean()
    loss: Tensor = cost + config.brier_weight * brier
    if config.objective == "cvar":
        loss = loss + state["multiplier"] * constraint
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if config.objective == "cvar":
        state["multiplier"] = dual_ascent(state["multiplier"], constraint.item(), config.dual_learning_rate)
    return Epoch(
        epoch=epoch,
        loss=loss.item(),
        cost=cost.item(),
        brier=brier.item(),
        cvar=risk.item(),
        constraint=constraint.item(),
        multiplier=state["multiplier"] if config.objective == "cvar" else 0.0,
        share=share.item(),
        cut=torch.sigmoid(cut).item(),
    )


def settle_batch_norm(net: RouterNet, x: Tensor) -> None:
    """Replace the running averages, which lag behind the weights, by the statistics of all data without dropout."""
    net.eval()
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm1d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, here over one batch: the whole set
        norm.train()
    with torch.no_grad():
        net(x)


def _restore_level(net: RouterNet, rollouts: Rollouts) -> None:
    """Shift the last bias so that the mean probability is the mean label."""
    net.eval()
    head = net.layers[-1]
    with torch.no_grad():
        logits = net(rollouts.x).double().numpy()
        share = rollouts.label.double().mean().item()
        head.bias += brentq(lambda shift: float(np.mean(expit(logits + shift))) - share, -1000.0, 1000.0)


def _save(path: Path, parts: dict[str, Any], cut: Tensor, epoch: int, multiplier: float, log: list[Epoch]) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"cut": cut.detach(), "rng": torch.get_rng_state(), "epoch": epoch, "multiplier": multiplier}
    state["log"] = [line.model_dump() for line in log]
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _restore(path: Path, parts: dict[str, Any], cut: Tensor) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    with torch.no_grad():
        cut.copy_(state["cut"])
    torch.set_rng_state(state["rng"])
    return state


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a named random stream; everything as it was afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
