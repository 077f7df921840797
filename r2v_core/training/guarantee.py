"""What a router's calibration tries and promises, from its config, and what too few validation templates can't show."""

from __future__ import annotations

from r2v_core.config.schema import RouterConfig
from r2v_core.evaluation.certificates import Guarantee, fewest_templates

LEVELS = (1.0, 0.8, 0.7, 0.6, 0.45, 0.35, 0.28, 0.22, 0.17, 0.13, 0.1, 0.07, 0.04, 0.0)
"""Shares of logged steps of the router split above the thresholds that are played, from safe to cheap."""


def guarantee_of(config: RouterConfig, provider: str) -> Guarantee:
    """The guarantee of a config; ``provider`` is the teacher's, ``env`` for a benchmark's expert."""
    risk = config.guarantee
    if risk == "auto":
        risk = "failure" if provider == "env" else "excess"
    alpha = config.cvar_alpha if risk == "cvar" and config.objective == "cvar" else 1.0
    return Guarantee(risk, config.cvar_epsilon, config.delta, alpha)


def shortfall(config: RouterConfig, provider: str, templates: int) -> str | None:
    """Why so few validation templates can certify nothing, whatever comes of playing them; None where they can."""
    if config.calibrate != "played" or config.teacher_share is not None:
        return None
    guarantee = guarantee_of(config, provider)
    least = fewest_templates(guarantee)
    if least is not None and templates >= least:
        return None
    why = f"raise benchmark.splits.validation to {least} or more" if least else "raise training.router.cvar_epsilon"
    return (
        f"{templates} validation templates can't certify that {guarantee.sentence()}, not even if nothing fails, so "
        f"the threshold will be called uncertified; {why}"
    )
