"""The ablations as a table: what each one changes in the configuration. Light, because the stage table is made from it.

What has to be trained or played again follows from the stage table: a stage whose config or inputs differ from the
full method's is run again, every other run of the full method is read as it is (:mod:`r2v_core.stages.ablation`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from r2v_core.perturbations import FAMILIES

if TYPE_CHECKING:
    from r2v_core.config import Config

PREFIX = "ablation_"
"""Stage and asset of an ablation: this and its name."""
FOLDER = "ablations"
"""Below ``paths.data`` and ``paths.outputs``: the runs that ablations had to make."""


@dataclass(frozen=True)
class Ablation:
    """One question about the method, answered by one or several variants of it."""

    name: str
    title: str
    variants: Mapping[str, tuple[str, ...]]
    """Name of the variant (unique, safe as a file name) → config overrides."""
    decides: Callable[[Config], Hashable] | None = None
    """What of a variant's configuration can make a difference; of variants that agree in it, one is enough."""

    @property
    def stage(self) -> str:
        """Name of its stage and asset."""
        return PREFIX + self.name


def _single(name: str, title: str, *overrides: str) -> Ablation:
    return Ablation(name, title, {name: overrides})


FEATURE_GROUPS = {
    "uncertainty": (
        *("entropy", "logprob_best", "logprob_mean", "logprob_std", "logprob_chosen"),
        *("consistency", "semantic_entropy"),
    ),
    "verifier": (
        *("verifier_spread", "verifier_mean", "verifier_std", "verifier_best", "verifier_worst", "verifier_chosen"),
    ),
    "progress": ("horizon_fraction", "step", "context_length", "goal_length"),
    "grounding": ("ungrounded",),
    "loop": ("state_seen", "action_repeated", "unchanged", "vain_calls"),
}
"""What the features tell: how sure the policy is, what the verifier thinks, how far the episode is, whether its action
names what is there, whether it goes round in circles."""

ALPHAS, EPSILONS = (0.2, 0.5, 1.0), (0.1, 0.2, 0.3)
BETAS, WEIGHTS = (0.03, 0.3), (0.03, 0.3, 1.0)
"""Beside the defaults, 0.1 of both; weight 0 is ``no_consistency``."""
TEACHER_COSTS = (10.0, 200.0)
"""Cost units of one teacher step, beside the default, 50."""


def _tails(config: Config) -> Hashable:
    """α acts through a number of worlds, ⌈α|Z|⌉, and through the guarantee where that is of CVaR."""
    from r2v_core.evaluation.metrics import worst_count

    router, seeds = config.training.router, config.perturbations.seeds
    tails = tuple(worst_count(n, router.cvar_alpha) for n in (seeds.router, seeds.validation))
    return *tails, router.cvar_epsilon, router.cvar_alpha if router.guarantee == "cvar" else None


def _without(group: str) -> str:
    kept = [name for other, names in FEATURE_GROUPS.items() if other != group for name in names]
    return f"training.router.features=[{', '.join(kept)}]"


ABLATIONS: dict[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        _single("no_bc", "No behaviour cloning: DPO starts from the small model itself", "training.bc.max_steps=0"),
        _single("no_preference", "No preference optimisation: the BC policy acts", "training.dpo.max_steps=0"),
        _single("no_consistency", "DPO without the consistency term", "training.dpo.consistency_weight=0.0"),
        _single(
            "no_verifier",
            "No verifier: candidates are not scored, neither to choose one nor for the router",
            "agent.verifier=false",
            "candidates.rank_by=environment",
        ),
        Ablation(
            "no_risk_calibration",
            "The published Lagrangian router, and the same with expected cost instead of CVaR",
            {
                "lagrangian": ("training.router.scorer=lagrangian",),
                "no_risk_calibration": ("training.router.scorer=lagrangian", "training.router.objective=expected_cost"),
            },
        ),
        _single(
            "static_threshold",
            "The router's threshold is 0.5 instead of the calibrated one",
            "evaluation.router_threshold=0.5",
        ),
        _single(
            "no_self_correction",
            "An action that just failed in the same state may be played again",
            "agent.self_correction=false",
        ),
        _single(
            "no_brier",
            "The published Lagrangian router without the Brier term in its loss",
            "training.router.scorer=lagrangian",
            "training.router.brier_weight=0.0",
        ),
        _single(
            "no_temperature",
            "The router's probabilities as its scorer gives them, without the calibration of level and slope",
            "training.router.calibrated=false",
        ),
        Ablation(
            "cost_ratio",
            "The published Lagrangian router, trained and counted for a cheaper and a dearer teacher",
            {
                f"teacher_costs_{cost:g}": ("training.router.scorer=lagrangian", f"agent.cost_teacher={cost:g}")
                for cost in TEACHER_COSTS
            },
        ),
        Ablation(
            "preference_sweep",
            "DPO with other temperatures β and weights λ of the consistency term",
            {f"beta_{beta:g}": (f"training.dpo.beta={beta:g}",) for beta in BETAS}
            | {f"consistency_{weight:g}": (f"training.dpo.consistency_weight={weight:g}",) for weight in WEIGHTS},
        ),
        Ablation(
            "unseen_noise",
            "A family of noise that training, router and thresholds never met",
            {f"unseen_{family}": (f"perturbations.held_out=[{family}]",) for family in FAMILIES},
        ),
        Ablation(
            "feature_groups",
            "Routers that lack one group of features",
            {f"without_{group}_features": (_without(group),) for group in FEATURE_GROUPS},
        ),
        Ablation(
            "risk_sweep",
            "Lagrangian routers trained and calibrated for other tails α and bounds ε",
            {
                f"alpha_{alpha:g}_epsilon_{epsilon:g}": (
                    "training.router.scorer=lagrangian",
                    f"training.router.cvar_alpha={alpha:g}",
                    f"training.router.cvar_epsilon={epsilon:g}",
                )
                for alpha, epsilon in product(ALPHAS, EPSILONS)
            },
            _tails,
        ),
    )
}
