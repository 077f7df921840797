"""What chance decides, drawn again: templates, worlds and training seeds, with replacement.

Episodes of one template are alike (one task under other noise), and so are episodes of one world (one noise on other
tasks). An episode counts as often as its template was drawn times how often its world was (the product or "pigeonhole"
bootstrap of crossed factors, Owen 2007). Where there are several training seeds, they are drawn first, and each brings
what is its own. Every factor is drawn alone besides, which tells how much it contributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from r2v_core.errors import R2VError
from r2v_core.evaluation.metrics import Metric, Tally

Floats = NDArray[np.float64]
Unit = TypeVar("Unit", str, int)


@dataclass(frozen=True)
class Factor:
    """One thing that is drawn."""

    n: int
    """Units drawn from: templates, worlds or training seeds."""
    strata: int = 1
    """Groups that are drawn apart from each other."""
    nested: bool = False
    """Whether every unit belongs to one training seed, so that drawing seeds draws these along."""

    @property
    def freedom(self) -> int:
        """Degrees of freedom of a variance between units: one less than units, for each stratum."""
        return self.n - self.strata


@dataclass(frozen=True)
class Resamples:
    """One set of draws, shared by all methods so that their differences are paired."""

    templates: dict[int, Floats]
    """Training seed → how often each task's template was drawn, shape (B, tasks of that seed)."""
    worlds: dict[int, dict[int, Floats]]
    """Training seed → world z → how often it was drawn, shape (B,)."""
    seeds: Floats
    """How often each training seed was drawn, in the order of ``templates``, shape (B, seeds)."""
    factors: tuple[Factor, Factor, Factor]
    """Templates, worlds, training seeds."""
    confidence: float

    @property
    def n_clusters(self) -> int:
        """Templates drawn from."""
        return self.factors[0].n

    def worlds_of(self, seed: int, tally: Tally) -> Floats | None:
        """How often each of a tally's worlds was drawn, shape (B, |Z|); None where its z are no worlds.

        Raises:
            R2VError: if it met a world that was not among those drawn from.
        """
        if not tally.worlds:
            return None
        if unknown := sorted(set(tally.zs) - set(self.worlds[seed])):
            raise R2VError(
                f"seed {seed}: a method met perturbation seed {unknown[0]}, the one it is compared with did not; "
                "materialise the evaluation of this seed again"
            )
        return np.stack([self.worlds[seed][z] for z in tally.zs], axis=1)


def cluster_weights(strata: Sequence[object], n_resamples: int, generator: np.random.Generator) -> Floats:
    """How often each cluster is drawn in each bootstrap resample.

    Clusters are drawn with replacement within their stratum, as many as it has.

    Args:
        strata: the stratum of each cluster.
        n_resamples: B.
        generator: source of randomness.

    Returns:
        Shape (B, clusters); every row sums to the number of clusters.
    """
    names = [repr(stratum) for stratum in strata]
    weights = np.zeros((n_resamples, len(names)))
    for name in sorted(set(names)):
        members = [i for i, other in enumerate(names) if other == name]
        weights[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), n_resamples)
    return weights


def draw(
    templates: Mapping[int, Sequence[str]],
    worlds: Mapping[int, Sequence[int]],
    n_resamples: int,
    confidence: float,
    generator: np.random.Generator,
) -> Resamples:
    """Draw templates, worlds and training seeds; all tasks of a template are drawn together.

    The stratum of a template or world is the set of training seeds it occurs in: what seeds have of their own is
    resampled apart, what all share is drawn for all of them together.

    Args:
        templates: training seed → the template of each task, in the order of the tallies.
        worlds: training seed → its perturbation seeds; none where there is nothing that tasks share.
        n_resamples: B.
        confidence: coverage of the intervals, in (0, 1).
        generator: source of randomness.

    Raises:
        R2VError: if there are no tasks.
    """
    drawn, template = _draw_units(templates, n_resamples, generator)
    if not template.n:
        raise R2VError("no tasks to resample")
    met, world = _draw_units(worlds, n_resamples, generator)
    n = len(templates)
    return Resamples(
        {seed: np.stack([drawn[name] for name in names], axis=1) for seed, names in templates.items()},
        {seed: {z: met[z] for z in zs} for seed, zs in worlds.items()},
        cluster_weights([0] * n, n_resamples, generator),
        (template, world, Factor(n)),
        confidence,
    )


def _draw_units(
    units: Mapping[int, Sequence[Unit]], n_resamples: int, generator: np.random.Generator
) -> tuple[dict[Unit, Floats], Factor]:
    """Unit → how often it was drawn, shape (B,), and what was drawn from."""
    members: dict[Unit, set[int]] = {}
    for seed, names in units.items():
        for name in names:
            members.setdefault(name, set()).add(seed)
    ordered = sorted(members)
    strata = [tuple(sorted(members[name])) for name in ordered]
    weights = cluster_weights(strata, n_resamples, generator)
    nested = len(units) > 1 and all(len(stratum) == 1 for stratum in strata)
    return dict(zip(ordered, weights.T, strict=True)), Factor(len(ordered), len(set(strata)), nested)


def resampled(tallies: Mapping[int, Tally], metric: Metric, resamples: Resamples) -> tuple[Floats, Floats]:
    """A metric on the data and on the resamples, averaged over training seeds.

    Worlds are taken as they are where noise moves a metric one way, or it does not tell them apart (``Metric.biased``,
    ``given_worlds``).

    Returns:
        The value of each training seed, shape (seeds,), and the resampled averages, shape (4, B): everything drawn,
        then templates, worlds and seeds, each alone.
    """
    points, rows = [], []
    for seed, tally in tallies.items():
        once, drawn = np.ones((1, len(tally.tasks))), resamples.templates[seed]
        point = metric.compute(tally, once, None)[0]
        alone = metric.compute(tally, drawn, None)
        worlds = None if metric.biased or metric.given_worlds else resamples.worlds_of(seed, tally)
        if worlds is None:
            both, world = alone, np.full(len(alone), point)
        else:
            both, world = metric.compute(tally, drawn, worlds), metric.compute(tally, once, worlds)
        points.append(point)
        rows.append(np.stack([both, alone, world]))
    values, draws, share = np.array(points), np.stack(rows, axis=-1), resamples.seeds / len(points)
    everything = (draws[0] * share).sum(axis=-1)
    return values, np.stack([everything, draws[1].mean(axis=-1), draws[2].mean(axis=-1), share @ values])
