"""Rules that nothing is calibrated for."""

from __future__ import annotations

from r2v_core.agent.rules.base import RoutingContext, RoutingDecision, RoutingRule, Rule, RuleSettings


def _always(escalate: bool) -> Rule:
    return lambda context: RoutingDecision(escalate)


def heuristic(settings: RuleSettings) -> Rule:
    """Escalate on high entropy or a low mean verifier score, at fixed thresholds (2.5 nats, 0.4 unless configured)."""
    agent = settings.agent

    def rule(context: RoutingContext) -> RoutingDecision:
        unsure = context.features["entropy"] > agent.entropy_threshold
        return RoutingDecision(unsure or context.features["verifier_mean"] < agent.verifier_threshold)

    return rule


def oracle(context: RoutingContext) -> RoutingDecision:
    """Escalate exactly where the SLM's chosen action would not make progress (unknown counts as progress)."""
    return RoutingDecision(context.would_progress() is False)


SLM_ONLY = RoutingRule(
    name="slm_only",
    title="the small model plays every step",
    make=lambda settings: _always(False),
    colour="#56B4E9",
    marker="v",
    decision=lambda agent: "never asks",
)
LLM_ONLY = RoutingRule(
    name="llm_only",
    title="the teacher plays every step; its success is measured, not assumed",
    make=lambda settings: _always(True),
    colour="#000000",
    marker="^",
    decision=lambda agent: "the teacher plays every step",
    proposes=False,
)
HEURISTIC = RoutingRule(
    name="heuristic_router",
    title="asks where entropy is high or the mean verifier score is low, fixed thresholds",
    make=heuristic,
    colour="#F0E442",
    marker="D",
    decision=lambda agent: (
        f"asks where entropy > {agent.entropy_threshold:g} nats or the mean verifier score "
        f"< {agent.verifier_threshold:g}"
    ),
)
ORACLE = RoutingRule(
    name="oracle_router",
    title="asks exactly where the small model would be wrong; looks at the truth, so an upper bound",
    make=lambda settings: oracle,
    colour="#D55E00",
    marker="*",
    decision=lambda agent: "asks where the small model's action would not make progress",
    upper_bound=True,
)
