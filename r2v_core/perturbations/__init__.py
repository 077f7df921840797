"""The noise z: four families of seeded operators between the environment and the agent.

A perturbation is a deterministic function of (z, task, step, operator), so every method meets the same noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from r2v_core.config.schema import FamilyConfig, PerturbationsConfig
from r2v_core.digest import rng
from r2v_core.perturbations.base import Family, StepContext, View
from r2v_core.perturbations.seeds import Purpose, purpose_of, seeds_for, seeds_of_groups, teacher_seeds
from r2v_core.perturbations.worlds import METADATA, severities, severity
from r2v_core.trajectory import Observation, Perturbation

__all__ = [
    "FAMILIES",
    "Family",
    "Noise",
    "Purpose",
    "StepContext",
    "make_noise",
    "probabilities",
    "seeds_for",
    "seeds_of_groups",
    "teacher_seeds",
]

FAMILIES: dict[str, str] = {
    "tool_flakiness": "r2v_core.perturbations.tool_flakiness:ToolFlakiness",
    "partial_observability": "r2v_core.perturbations.partial_observability:PartialObservability",
    "distractors": "r2v_core.perturbations.distractors:Distractors",
    "prompt_injection": "r2v_core.perturbations.prompt_injection:PromptInjection",
}
"""Name (= section of ``perturbations`` in the config) → 'module:class', in the order in which they are applied: what
the tool returns is damaged, parts of it go missing, content is added; commands come last, so they stay legible."""


class Noise:
    """The families of one config, applied in their order. Without state: everything depends on the moment."""

    def __init__(
        self,
        families: Sequence[Family],
        spread: float = 0.0,
        probs: Mapping[str, float] | None = None,
        held_out: Iterable[str] = (),
    ) -> None:
        """Args:
        families: in the order in which they are applied.
        spread: standard deviation of a family's severity over worlds.
        probs: family → probability that it is at work at a step; 1 where it is not named.
        held_out: families that only worlds of the purpose ``test`` have.
        """
        self.families = tuple(families)
        self.spread = spread
        self.probs = dict(probs or {})
        self.held_out = frozenset(held_out)

    @classmethod
    def none(cls) -> Noise:
        """No noise: every observation as it is, every action carried out."""
        return cls(())

    def observe(self, context: StepContext, observation: Observation) -> tuple[Observation, list[Perturbation]]:
        """What the agent sees of a clean observation, and what was done to it.

        The clean observation itself comes back where nothing was done; it is never changed in place.
        """
        view = View(observation)
        for family in self._at_work(context):
            family.observe(self._in_world(context, family), view)
        return view.observation, view.records

    def intercept(self, context: StepContext, action: str) -> tuple[Observation, Perturbation] | None:
        """The clean observation that follows a call that failed, with its record; None: the action is carried out.

        A failed call is a step of the episode like any other: the next moment's ``step`` is one higher. The
        observation that comes back takes the place of the environment's and is itself observed through the noise.

        Raises:
            ValueError: if ``context.current`` is missing (a mistake of the caller).
        """
        for family in self._at_work(context):
            failure = family.intercept(self._in_world(context, family), action)
            if failure is not None:
                return failure
        return None

    def _at_work(self, context: StepContext) -> Iterator[Family]:
        """The families of this moment: a draw of a family's own, so that its operators' draws stay what they were."""
        for family in self._of_world(context.z):
            prob = self.probs.get(family.name, 1.0)
            if prob == 1.0 or rng(context.z, context.task_id, context.step, family.name).random() < prob:
                yield family

    def _of_world(self, z: int) -> list[Family]:
        known = purpose_of(z) != "test"
        return [family for family in self.families if not (known and family.name in self.held_out)]

    def _in_world(self, context: StepContext, family: Family) -> StepContext:
        return replace(context, severity=severity(context.z, family.name, self.spread))

    def world(self, z: int | None) -> dict[str, dict[str, float]]:
        """What an episode's metadata says of its world: how severe each family is there."""
        found = {} if z is None else severities(z, (family.name for family in self._of_world(z)), self.spread)
        return {METADATA: found} if found else {}


def make_noise(config: PerturbationsConfig) -> Noise:
    """The noise that a config describes."""
    families: list[Family] = []
    probs = {}
    for name, target in FAMILIES.items():
        settings = getattr(config, name)
        if settings.enabled:
            module, _, attribute = target.partition(":")
            families.append(getattr(import_module(module), attribute)(settings))
            probs[name] = settings.prob
    return Noise(families, config.severity_spread, probs, config.held_out)


def probabilities(family: Mapping[str, Any]) -> dict[str, float]:
    """Operator → probability per step, of a family's section in a config snapshot; 0 where it is switched off."""
    share = float(family.get("prob", 1.0)) if family.get("enabled", True) else 0.0
    return {
        name: value * share
        for name, value in family.items()
        if name not in FamilyConfig.model_fields and not name.endswith("_share")
    }
