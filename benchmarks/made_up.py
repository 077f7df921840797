"""Made-up tasks whose true rates are known: a population, episodes drawn from it, tables' sums of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from r2v_core.benchmarks.base import Task
from r2v_core.evaluation.metrics import SUMMED, Tally
from r2v_core.results.frontier import cost_area
from r2v_core.stages.design import worlds_met

Floats = NDArray[np.float64]

FAMILIES = 4
STEPS, TEACHER = 10, 50.0
"""Steps of an episode, and what a teacher call costs besides the small model's 1 unit a step."""
ENDS, END_COSTS = (-1.0, 1.0), (STEPS, STEPS * TEACHER)
"""Logits of the small model alone and of the teacher alone, on top of the first method's; cost of their episodes."""
SWEEP = ((0.2, -0.4), (0.5, 0.3), (0.8, 0.7))
"""Share of teacher calls of a typical template → logit of a swept rule there, on top of its method's."""
HARDER = 0.5
"""How much the logit of the share of calls rises where a template's effect falls by 1."""
GRID = norm.ppf((np.arange(4000) + 0.5) / 4000)
"""A standard normal's values, all alike probable."""


@dataclass(frozen=True)
class Population:
    """Standard deviations of normal effects on the logit of success, of both methods together and of one alone."""

    template: float = 1.0
    world: float = 0.5
    seed: float = 0.4
    base: float = 0.5
    """Logit of success where all effects are 0."""
    gap: float = 0.5
    """How much lower the second method's is."""
    own: float = 0.5
    """Share of each effect's deviation that a method has of its own besides."""

    @property
    def given_seed(self) -> Population:
        """The same where there is nothing to training: what one seed's interval speaks of."""
        return replace(self, seed=0.0)

    def levels(self, swept: bool) -> list[float]:
        """Logit of success of each method where all effects are 0; with ``swept`` the ends of the sweep, too."""
        return [self.base, self.base - self.gap, *(self.base + end for end in ENDS if swept)]

    def rate(self, level: float) -> float:
        """True success rate where the logit without effects is ``level``."""
        spread = np.sqrt(self.template**2 + self.world**2 + self.seed**2) * np.sqrt(1 + self.own**2)
        return float(expit(level + spread * GRID).mean())

    def draw(
        self, seeds: int, templates: int, worlds: int, random: np.random.Generator, own: bool = False
    ) -> tuple[Floats, Floats]:
        """Logits of success, shape (method, seed, template, world), and what templates add to them.

        Args:
            seeds: training seeds.
            templates: templates of a seed.
            worlds: worlds of a seed.
            random: source of randomness.
            own: whether templates are each seed's own; then the ends of a sweep are the third and fourth method.
        """
        base = np.array(self.levels(own))[:, None, None, None]
        n, shape = len(base), (seeds if own else 1, templates, 1)
        hard = self._effect(self.template, n, shape, random)
        rest = self._effect(self.world, n, (seeds, 1, worlds), random)
        rest = rest + self._effect(self.seed, n, (seeds, 1, 1), random)
        return base + hard + rest, hard

    def _effect(self, spread: float, methods: int, shape: tuple[int, ...], random: np.random.Generator) -> Floats:
        """What all methods share and what each has of its own; shape (method, *shape)."""
        return spread * (random.normal(size=shape) + self.own * random.normal(size=(methods, *shape)))

    def calls(self, share: float) -> float:
        """True mean of an episode's teacher calls where a typical template has this share."""
        spread = HARDER * self.template * np.sqrt(1 + self.own**2)
        return STEPS * float(expit(logit(share) + spread * GRID).mean())

    def true_area(self, method: int) -> float:
        """True area over cost of a swept rule."""
        level = self.levels(False)[method]
        success = [self.rate(self.base + end) for end in ENDS] + [self.rate(level + lift) for _, lift in SWEEP]
        cost = [*END_COSTS] + [STEPS + TEACHER * self.calls(share) for share, _ in SWEEP]
        return float(cost_area(np.array(cost)[:, None], np.array(success)[:, None], (0, 1))[0])

    def world_rates(self, levels: Floats) -> Floats:
        """True success rates of worlds that were met, over all templates there are.

        Args:
            levels: logits there of a template without an effect, shape (worlds,).
        """
        grid = self.template * np.sqrt(1 + self.own**2) * norm.ppf((np.arange(400) + 0.5) / 400)
        rates: Floats = expit(grid[:, None] + levels).mean(axis=0)
        return rates


def tally_of(
    success: Floats,
    seed: int,
    shared_worlds: bool = True,
    met: Floats | None = None,
    cost: Floats | None = None,
    prefix: str = "t",
) -> Tally:
    """Sums of one episode a template and world.

    Args:
        success: shape (templates, worlds).
        seed: names the worlds.
        shared_worlds: whether templates share them.
        met: 1 where a template was played in a world, 0 elsewhere; none: everywhere.
        cost: of the episodes, the same shape.
        prefix: how templates' names begin.
    """
    nothing = np.zeros_like(success)
    names = tuple(f"{prefix}{i:03d}" for i in range(len(success)))
    zs = tuple(seed * 1000 + i for i in range(success.shape[1]))
    sums = dict.fromkeys(SUMMED, nothing) | {"success": success, "cost": nothing if cost is None else cost}
    bins = np.zeros((len(success), 10, 3))
    episodes = np.ones_like(success) if met is None else met
    return Tally(names, names, zs, shared_worlds, episodes, sums, nothing, nothing, bins)


def deal(templates: int, worlds: int, per_template: int, seed: int) -> Floats:
    """1 where a template meets a world as evaluations deal them, else 0; shape (templates, worlds)."""
    if not per_template:
        return np.ones((templates, worlds))
    hands = worlds_met(_tasks(templates), range(worlds), per_template, seed)
    met = np.zeros((templates, worlds))
    for i, hand in enumerate(hands[task.template_id] for task in _tasks(templates)):
        met[i, list(hand)] = 1.0
    return met


@lru_cache
def _tasks(templates: int) -> tuple[Task, ...]:
    """A task a template, in families of equal size."""
    names = [f"t{i:03d}" for i in range(templates)]
    return tuple(
        Task(
            task_id=name,
            template_id=name,
            benchmark="made up",
            family=f"f{i % FAMILIES}",
            goal="",
            split="test",
            max_steps=1,
            content=name,
        )
        for i, name in enumerate(names)
    )


Point = dict[int, Tally]
"""Training seed → sums."""


def sweep(
    logits: Floats,
    hard: Floats,
    method: int,
    met: list[Floats],
    prefix: list[str],
    random: np.random.Generator,
) -> list[Point]:
    """A rule played at the shares of :data:`SWEEP`: calls are more on hard templates, all else is its method's."""
    points = []
    for share, lift in SWEEP:
        won = (random.random(logits[method].shape) < expit(logits[method] + lift)) * np.array(met)
        chance = expit(logit(share) - HARDER * hard[method])
        calls = random.binomial(STEPS, np.broadcast_to(chance, won.shape))
        cost = (STEPS + TEACHER * calls) * np.array(met)
        points.append({s: tally_of(won[s], s, True, met[s], cost[s], prefix[s]) for s in range(len(met))})
    return points
