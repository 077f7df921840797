"""Asking at random: what a share of teacher calls is worth when nothing is known about the step."""

from __future__ import annotations

from r2v_core.agent.rules.base import RoutingContext, RoutingDecision, RoutingRule, Rule, RuleSettings
from r2v_core.digest import rng


def at_random(rate: float, seed: int) -> Rule:
    """Escalate a share ``rate`` of all steps, independently, the same way in every run of one seed."""

    def rule(context: RoutingContext) -> RoutingDecision:
        draw = rng(seed, "random_router", context.z, context.replicate, context.task_id, context.step).random()
        return RoutingDecision(bool(draw < rate))

    return rule


def _make(settings: RuleSettings) -> Rule:
    rate = settings.calibrated("rate") if settings.share is None else settings.share
    return at_random(rate, settings.seed)


RANDOM = RoutingRule(
    name="random_router",
    title="asks at random, at r2v's rate",
    make=_make,
    colour="#CC79A7",
    marker="X",
    line=":",
    threshold="rate",
    decision=lambda agent: "by lot, at r2v's rate",
)
