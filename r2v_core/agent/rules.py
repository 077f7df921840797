"""Routing rules: who acts at a step. A rule looks at one step and answers with a risk score and a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from r2v_core.agent.features import RULE_SCORES
from r2v_core.config.schema import AgentConfig, EvaluationConfig
from r2v_core.digest import rng
from r2v_core.errors import R2VError, nearest

if TYPE_CHECKING:
    from r2v_core.models.router import Router


@dataclass(frozen=True)
class Query:
    """What a rule may look at."""

    features: dict[str, float]
    task_id: str
    z: int | None
    replicate: int
    step: int
    would_progress: Callable[[], bool | None]
    """Ground truth about the SLM's chosen action. For the oracle alone."""


@dataclass(frozen=True)
class Verdict:
    """A rule's answer: ``probability`` is its risk score where it has one, compared with ``threshold``."""

    escalate: bool
    probability: float | None = None
    threshold: float | None = None


Rule = Callable[[Query], Verdict]

SCORING = ("r2v", "entropy_router", "verifier_router", "random_router")
"""Rules with a threshold (or a rate) that can be set for a wanted share of teacher calls."""


def at_share(rule: str, share: float) -> str:
    """Name of a scoring rule at a share of teacher calls, e.g. ``r2v@0.2``."""
    return f"{rule}@{share:g}"


def evaluated_methods(evaluation: EvaluationConfig) -> list[str]:
    """What an evaluation plays: the methods, and every scoring rule among them at every share of the sweep."""
    swept = [rule for rule in SCORING if rule in evaluation.methods]
    return [*evaluation.methods, *(at_share(rule, share) for rule in swept for share in evaluation.sweep)]


def proposes(method: str) -> bool:
    """Whether the method asks the small model at every step; ``llm_only`` never does."""
    return method != "llm_only"


def above(score: Callable[[Mapping[str, float]], float], threshold: float) -> Rule:
    """Escalate where a score of the features exceeds a threshold."""

    def rule(query: Query) -> Verdict:
        value = score(query.features)
        return Verdict(value > threshold, value, threshold)

    return rule


def heuristic(agent: AgentConfig) -> Rule:
    """Escalate on high entropy or a low mean verifier score, at fixed thresholds (DESIGN: 2.5 nats, 0.4)."""

    def rule(query: Query) -> Verdict:
        unsure = query.features["entropy"] > agent.entropy_threshold
        return Verdict(unsure or query.features["verifier_mean"] < agent.verifier_threshold)

    return rule


def at_random(rate: float, seed: int) -> Rule:
    """Escalate a share ``rate`` of all steps, independently, the same way in every run of one seed."""

    def rule(query: Query) -> Verdict:
        draw = rng(seed, "random_router", query.z, query.replicate, query.task_id, query.step).random()
        return Verdict(bool(draw < rate))

    return rule


def oracle(query: Query) -> Verdict:
    """Escalate exactly where the SLM's chosen action would not make progress (unknown counts as progress)."""
    return Verdict(query.would_progress() is False)


def learned(router: Router, threshold: float) -> Rule:
    """Escalate where the trained router's calibrated probability of failure exceeds a threshold."""

    def rule(query: Query) -> Verdict:
        row = np.array([[query.features[name] for name in router.features]], dtype=np.float32)
        probability = float(router.probability(row)[0])
        return Verdict(probability > threshold, probability, threshold)

    return rule


def make_rules(methods: Sequence[str], agent: AgentConfig, seed: int, router: Router | None) -> dict[str, Rule]:
    """The rules of the named methods.

    ``<rule>@<share>`` is a scoring rule whose threshold is exceeded at that share of the router's validation steps.

    Raises:
        R2VError: for an unknown method, or one that needs a trained router where none is given.
    """
    fixed: dict[str, Rule] = {
        "slm_only": lambda query: Verdict(False),
        "llm_only": lambda query: Verdict(True),
        "heuristic_router": heuristic(agent),
        "oracle_router": oracle,
    }
    rules: dict[str, Rule] = {}
    for method in methods:
        name, _, share = method.partition("@")
        if name not in (SCORING if share else (*fixed, *SCORING)):
            raise R2VError(f"Unknown method '{method}'.{nearest(name, [*fixed, *SCORING])}")
        if name in fixed:
            rules[method] = fixed[name]
        elif router is None:
            raise R2VError(f"method '{method}' needs a trained router; materialise 'router' first")
        else:
            rules[method] = _scoring_rule(name, float(share) if share else None, seed, router)
    return rules


def _scoring_rule(name: str, share: float | None, seed: int, router: Router) -> Rule:
    """A rule at its calibrated threshold, or at the one for a share of teacher calls."""
    if name == "random_router":
        return at_random(router.rules[name]["rate"] if share is None else share, seed)
    if name == "r2v":
        return learned(router, router.threshold if share is None else router.threshold_at(name, share))
    return above(
        RULE_SCORES[name], router.rules[name]["threshold"] if share is None else router.threshold_at(name, share)
    )
