"""Which routing rules there are, and the methods that an evaluation makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from r2v_core.agent.rules.base import RoutingRule, Rule, RuleSettings
from r2v_core.agent.rules.baselines import BASELINES
from r2v_core.agent.rules.fixed import HEURISTIC, LLM_ONLY, ORACLE, SLM_ONLY
from r2v_core.agent.rules.lottery import RANDOM
from r2v_core.agent.rules.scored import ENTROPY, R2V, VERIFIER
from r2v_core.config.schema import AgentConfig, EvaluationConfig
from r2v_core.errors import R2VError, nearest

if TYPE_CHECKING:
    from r2v_core.models.router import Router

ENTRY_POINTS = "r2v.rules"
"""Entry-point group under which another package offers a :class:`RoutingRule` of its own."""

_BUILT_IN = (R2V, SLM_ONLY, LLM_ONLY, ENTROPY, HEURISTIC, VERIFIER, *BASELINES, RANDOM, ORACLE)

RULES: dict[str, RoutingRule] = {
    rule.name: rule for rule in (*_BUILT_IN, *(found.load() for found in entry_points(group=ENTRY_POINTS)))
}
"""Name → rule, in the order of tables and legends."""


def at_share(rule: str, share: float) -> str:
    """Name of a swept rule at a share of teacher calls, e.g. ``r2v@0.2``."""
    return f"{rule}@{share:g}"


def rule_of(method: str) -> str:
    """``r2v`` of ``r2v@0.2``."""
    return method.partition("@")[0]


def find_rule(method: str) -> RoutingRule:
    """The rule of a method.

    Raises:
        R2VError: for an unknown method, or a share of a rule that has none to set.
    """
    name, at, _ = method.partition("@")
    if name not in RULES or (at and not RULES[name].swept):
        raise R2VError(f"Unknown method '{method}'.{nearest(name, RULES)}")
    return RULES[name]


def proposes(method: str) -> bool:
    """Whether a method asks the small model at every step."""
    rule = RULES.get(rule_of(method))
    return rule is None or rule.proposes


def calibrated_rules(baselines: Sequence[str]) -> list[str]:
    """``r2v`` and the swept rules that are calibrated beside it (all where none is named), in the order of tables."""
    return [name for name, rule in RULES.items() if rule.swept and (name == "r2v" or name in (baselines or RULES))]


def playable_rules(baselines: Sequence[str]) -> list[str]:
    """The rules that need no calibration, and those that get it."""
    calibrated = calibrated_rules(baselines)
    return [name for name, rule in RULES.items() if not rule.swept or name in calibrated]


def looks_ahead(method: str) -> bool:
    """Whether a method asks at every step what the small model's action would be worth."""
    rule = RULES.get(rule_of(method))
    return rule is not None and rule.upper_bound


def evaluated_methods(evaluation: EvaluationConfig) -> list[str]:
    """What an evaluation plays: its methods (all rules where none is named), and every swept rule among them at every
    share of the sweep.
    """
    methods = evaluation.methods or list(RULES)
    swept = [name for name in RULES if RULES[name].swept and name in methods]
    return [*methods, *(at_share(name, share) for name in swept for share in evaluation.sweep)]


def make_rules(methods: Sequence[str], agent: AgentConfig, seed: int, router: Router | None) -> dict[str, Rule]:
    """The rules of the named methods.

    ``<rule>@<share>`` is a swept rule whose threshold is exceeded at that share of the router's validation steps.

    Raises:
        R2VError: for an unknown method, or one that needs a trained router where none is given.
    """
    made: dict[str, Rule] = {}
    for method in methods:
        rule = find_rule(method)
        _, _, share = method.partition("@")
        made[method] = rule.make(RuleSettings(rule.name, agent, seed, router, float(share) if share else None))
    return made
