"""Rules that compare a risk score with a calibrated threshold: trained scorers, and single features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r2v_core.agent.features import feature_matrix
from r2v_core.agent.rules.base import RoutingContext, RoutingDecision, RoutingRule, Rule, RuleSettings, Score, in_scope

if TYPE_CHECKING:
    from r2v_core.models.router import Router


def own_scores(rule: RoutingRule, router: Router | None, steps: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Each step's own score under a rule, shape (n,), from its features."""
    if rule.score is not None:
        return np.array([rule.score(features) for features in steps])
    assert router is not None
    return router.probability(feature_matrix(steps, router.features), rule.scorer)


def compared(rule: RoutingRule, settings: RuleSettings) -> Rule:
    """Escalate where the score of a step (or of its episode, see :data:`Scope`) exceeds the rule's threshold."""
    if settings.share is not None:
        threshold = settings.trained.threshold_at(rule.name, settings.share)
    elif rule.name == "r2v":
        threshold = settings.trained.threshold
    else:
        threshold = settings.calibrated("threshold")
    router = settings.router

    def decide(context: RoutingContext) -> RoutingDecision:
        steps = [context.features] if rule.scope == "step" else [*context.earlier, context.features]
        value = float(in_scope(own_scores(rule, router, steps), rule.scope)[-1])
        return RoutingDecision(value > threshold, value, threshold)

    return decide


def thresholded(name: str, score: Score | None = None, **record: object) -> RoutingRule:
    """The record of a rule that escalates where a score exceeds its calibrated threshold.

    Args:
        name: of the rule.
        score: of a step's features; None: a probability of the trained router.
        record: the other fields of the record.
    """

    def make(settings: RuleSettings) -> Rule:
        return compared(made, settings)

    kind = "router" if score is None else "score"
    made = RoutingRule(name=name, make=make, threshold=kind, score=score, **record)  # type: ignore[arg-type]
    return made


FAILURE = "Predicted probability that the small model's action fails"

R2V = thresholded(
    "r2v",
    title="learned router, threshold calibrated on validation tasks",
    colour="#0072B2",
    marker="o",
    score_title=FAILURE,
    probabilistic=True,
)


def entropy(features: Mapping[str, float]) -> float:
    """The policy's mean next-token entropy, nats."""
    return features["entropy"]


ENTROPY = thresholded(
    "entropy_router",
    entropy,
    title="asks the teacher where the policy's entropy is high",
    colour="#E69F00",
    marker="s",
    line="--",
    score_title="Policy entropy (nats)",
)
VERIFIER = thresholded(
    "verifier_router",
    lambda features: 1.0 - features["verifier_mean"],
    title="asks where the verifier's score is low",
    colour="#009E73",
    marker="P",
    line="-.",
    score_title="1 − mean verifier score",
    probabilistic=True,
)
