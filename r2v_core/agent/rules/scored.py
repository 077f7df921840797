"""Rules that compare a risk score with a calibrated threshold: the trained router, and single features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from r2v_core.agent.rules.base import RoutingContext, RoutingDecision, RoutingRule, Rule, RuleSettings, Score


def above(score: Score, threshold: float) -> Rule:
    """Escalate where a score of the features exceeds a threshold."""

    def rule(context: RoutingContext) -> RoutingDecision:
        value = score(context.features)
        return RoutingDecision(value > threshold, value, threshold)

    return rule


def learned(settings: RuleSettings) -> Rule:
    """Escalate where the trained router's calibrated probability of failure exceeds its threshold."""
    router = settings.trained
    threshold = router.threshold if settings.share is None else router.threshold_at(settings.name, settings.share)

    def rule(context: RoutingContext) -> RoutingDecision:
        row = np.array([[context.features[name] for name in router.features]], dtype=np.float32)
        probability = float(router.probability(row)[0])
        return RoutingDecision(probability > threshold, probability, threshold)

    return rule


def thresholded(name: str, score: Score, **record: object) -> RoutingRule:
    """The record of a rule that escalates where ``score`` of a step's features exceeds its calibrated threshold."""

    def make(settings: RuleSettings) -> Rule:
        if settings.share is None:
            return above(score, settings.calibrated("threshold"))
        return above(score, settings.trained.threshold_at(name, settings.share))

    return RoutingRule(name=name, make=make, threshold="score", score=score, **record)  # type: ignore[arg-type]


R2V = RoutingRule(
    name="r2v",
    title="learned router, threshold calibrated on validation tasks",
    make=learned,
    colour="#0072B2",
    marker="o",
    threshold="router",
    score_title="Predicted probability that the small model's action fails",
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
