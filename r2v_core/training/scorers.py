"""Ways to learn a step's label from its features, and which of them to use.

They are compared by cross-fitting over the templates of the router split: each is trained on four fifths of them and
judged on the rest. The one with the least log loss is chosen, and its level and slope are fitted to the same
predictions, so that validation templates have no part in it: they only certify, and test templates only report.

Labels lie in [0, 1]; a soft label t is learnt as a 1 of weight t and a 0 of weight 1 − t.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch import nn

from r2v_core.agent.features import feature_matrix
from r2v_core.config.schema import AgentConfig, RouterConfig
from r2v_core.digest import derive_seed
from r2v_core.evaluation.calibration import auc, brier_score, fit_level_and_slope, log_loss, two_classes
from r2v_core.models.boosted import LEAF, BoostedTrees
from r2v_core.models.router import RouterNet, RouterRow, Scorer
from r2v_core.training.lagrangian import FailureModel, fit_failure_model, make_rollouts
from r2v_core.training.router import Epoch, deterministic, settle_batch_norm, train_net
from r2v_core.training.router_threshold import frontier_area

FOLDS = 5
MEMBERS = 5
"""Nets of an ensemble."""
TREES, LEAF_SHARE = 80, 0.03
"""Boosted trees, and the least share of all steps in a leaf."""
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse strengths C of the logistic regression's L2 penalty, per 1,000 steps; chosen by cross-validation."""


@dataclass(frozen=True)
class Fitting:
    """What a scorer is trained with."""

    names: Sequence[str]
    """Features, in the order of the matrix's columns."""
    config: RouterConfig
    agent: AgentConfig
    seed: int
    directory: Path
    """Where the Lagrangian keeps its log and checkpoint."""
    on_epoch: Callable[[Epoch], None] | None = None

    def x(self, rows: Sequence[RouterRow]) -> NDArray[np.float32]:
        """Features of shape (n, F)."""
        return feature_matrix([row.features for row in rows], self.names)


Fit = Callable[[Sequence[RouterRow], Fitting], Sequence[RouterNet | BoostedTrees]]


def lagrangian(rows: Sequence[RouterRow], fitting: Fitting) -> list[RouterNet]:
    """The published objective, expected cost under a bound on CVaR (:mod:`r2v_core.training.router`)."""
    model, config = fit_failure_model(rows), fitting.config
    rollouts = make_rollouts(rows, fitting.names)
    net, _ = train_net(rollouts, model, config, fitting.agent, fitting.seed, fitting.directory, fitting.on_epoch)
    return [net]


def logistic(rows: Sequence[RouterRow], fitting: Fitting) -> list[RouterNet]:
    """Logistic regression on standardised features; the L2 penalty is cross-validated over templates."""
    x, y = fitting.x(rows), _labels(rows)
    with deterministic(0):  # leaves the process's random numbers alone; the weights are replaced
        net = RouterNet(x.shape[1], [], 0.0)
    net.standardise(torch.from_numpy(x))
    scaled = ((torch.from_numpy(x) - net.mean) / net.std).double().numpy()

    def fit(chosen: NDArray[np.intp], penalty: float) -> LogisticRegression:
        strength = penalty * len(chosen) / 1000
        truth, weight, at = _as_classes(y[chosen])
        return LogisticRegression(C=strength, max_iter=1000).fit(scaled[chosen[at]], truth, sample_weight=weight)

    folds = [(train, test) for train, test in _folds(rows) if two_classes(y[train])]
    losses = [
        sum(log_loss(fit(train, penalty).decision_function(scaled[test]), y[test]) * len(test) for train, test in folds)
        for penalty in PENALTIES
    ]
    best = fit(np.arange(len(y)), PENALTIES[int(np.argmin(losses))])
    weights = {"layers.0.weight": torch.from_numpy(best.coef_), "layers.0.bias": torch.from_numpy(best.intercept_)}
    net.load_state_dict(net.state_dict() | weights)
    return [net.eval()]


def mlp(rows: Sequence[RouterRow], fitting: Fitting) -> list[RouterNet]:
    """The Lagrangian's net trained by log loss alone."""
    return [_by_log_loss(rows, fitting, 0)]


def ensemble(rows: Sequence[RouterRow], fitting: Fitting) -> list[RouterNet]:
    """Nets trained by log loss from different random starts; their logits are averaged."""
    return [_by_log_loss(rows, fitting, member) for member in range(MEMBERS)]


def boosting(rows: Sequence[RouterRow], fitting: Fitting) -> list[BoostedTrees]:
    """Gradient-boosted trees of depth 3 on log loss (Friedman 2001); they see what nets on so few steps smooth over."""
    x, y = fitting.x(rows), _labels(rows)
    truth, weight, at = _as_classes(y)
    model = GradientBoostingClassifier(
        n_estimators=TREES,
        learning_rate=0.05,
        max_depth=3,
        min_weight_fraction_leaf=LEAF_SHARE,
        random_state=derive_seed(fitting.seed, "router", "boosting") % 2**31,
    ).fit(x[at], truth, sample_weight=weight)
    grown = [tree.tree_ for (tree,) in model.estimators_]
    made = BoostedTrees(TREES, max(tree.node_count for tree in grown))
    made.start.fill_(logit(np.average(truth, weights=weight)))
    for i, tree in enumerate(grown):
        leaf = tree.children_left == tree.children_right
        feature = np.where(leaf, LEAF, tree.feature)
        value = np.where(leaf, model.learning_rate * tree.value[:, 0, 0], 0.0)
        made.put(i, feature, tree.threshold, (tree.children_left.clip(0), tree.children_right.clip(0)), value)
    return [made.eval()]


SCORERS: dict[str, Fit] = {
    "lagrangian": lagrangian,
    "logistic": logistic,
    "mlp": mlp,
    "ensemble": ensemble,
    "boosting": boosting,
}
"""Name in ``training.router.scorer`` → how it is trained."""


def _by_log_loss(rows: Sequence[RouterRow], fitting: Fitting, member: int) -> RouterNet:
    config = fitting.config
    x, y = torch.from_numpy(fitting.x(rows)), torch.from_numpy(_labels(rows)).float()
    with deterministic(derive_seed(fitting.seed, "router", "log_loss", member)):
        net = RouterNet(x.shape[1], list(config.hidden), config.dropout)
        net.standardise(x)
        optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        net.train()
        for _ in range(config.epochs):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(x), y).backward()
            optimiser.step()
        settle_batch_norm(net, x)
    return net.eval()


def _as_classes(y: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.intp]]:
    """Soft labels as (class, weight, whose): each once as a 1 and once as a 0, left out where it has no weight."""
    truth, weight = np.repeat([1, 0], len(y)), np.concatenate([y, 1 - y])
    some = weight > 0
    return truth[some], weight[some], np.tile(np.arange(len(y)), 2)[some]


def _labels(rows: Sequence[RouterRow]) -> NDArray[np.float64]:
    return np.array([row.label for row in rows], dtype=float)


def _folds(rows: Sequence[RouterRow]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(train, test) indices such that no template is in both; none where there is one template only."""
    templates = [row.template_id for row in rows]
    n = min(FOLDS, len(set(templates)))
    return list(GroupKFold(n).split(np.zeros(len(rows)), groups=templates)) if n > 1 else []


def cross_fitted(rows: Sequence[RouterRow], fit: Fit, fitting: Fitting) -> NDArray[np.float64]:
    """Logits of shape (n,), each by nets that saw no step of its template.

    Where the other templates hold labels of one class, a template's logit is theirs, smoothed; with a single template
    in all, nothing can be held out and the logits are in-sample.
    """
    y, found = _labels(rows), np.empty(len(rows))
    for train, test in _folds(rows) or [(np.arange(len(rows)), np.arange(len(rows)))]:
        share = (y[train].sum() + 1) / (len(train) + 2)
        found[test] = logit(share)
        if two_classes(y[train]):
            part = [rows[i] for i in train]
            with tempfile.TemporaryDirectory() as folder:
                nets = fit(part, replace(fitting, directory=Path(folder), on_epoch=None))
            found[test] = Scorer(nets).logits(fitting.x([rows[i] for i in test]))
    return found


@dataclass(frozen=True)
class Compared:
    """A scorer on templates that it was not trained on, after calibration of level and slope."""

    scorer: str
    log_loss: float
    """Nats a step."""
    brier: float
    auc: float
    area: float
    """Under success against cost, by the surrogate of failure (:func:`frontier_area`)."""
    slope: float
    level: float


def compare(rows: Sequence[RouterRow], fitting: Fitting, model: FailureModel) -> list[Compared]:
    """Cross-fit the configured scorer, or all of them, and those that other rules use; best first.

    Args:
        rows: logged steps of the router split, of both labels.
        fitting: how to train.
        model: the surrogate's constants.
    """
    wanted = fitting.config.scorer
    names = SCORERS if wanted == "auto" else dict.fromkeys((wanted, "lagrangian", "logistic"))
    y, rollouts = _labels(rows), make_rollouts(rows, fitting.names)
    found = []
    for name in names:
        logits = cross_fitted(rows, SCORERS[name], fitting)
        slope, level = fit_level_and_slope(logits, y) if fitting.config.calibrated else (1.0, 0.0)
        scaled = slope * logits + level
        found.append(
            Compared(
                name,
                log_loss(scaled, y),
                brier_score(expit(scaled), y),
                auc(scaled, y),
                frontier_area(expit(scaled), rollouts, model),
                slope,
                level,
            )
        )
    return sorted(found, key=lambda one: (wanted not in ("auto", one.scorer), one.log_loss))


def train_scorers(rows: Sequence[RouterRow], compared: Sequence[Compared], fitting: Fitting) -> dict[str, Scorer]:
    """The chosen scorer and those that baselines use, trained on all rows, calibrated as cross-fitting found."""
    chosen = compared[0].scorer
    kept = [one for one in compared if one.scorer in (chosen, "lagrangian", "logistic")]
    return {one.scorer: Scorer(SCORERS[one.scorer](rows, fitting), one.slope, one.level) for one in kept}
