"""The design of an evaluation: which task is played by which method under which noise. Pure; loads no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from r2v_core.agent.rules.table import evaluated_methods
from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import EvaluationConfig, SeedsConfig
from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.perturbations import seeds_for

Condition = Literal["clean", "noisy"]


@dataclass(frozen=True)
class Cell:
    """One episode that belongs to an evaluation."""

    task: Task
    z: int | None
    """Perturbation seed; None where clean."""
    replicate: int
    method: str

    @property
    def stream(self) -> str:
        """Short name of the noise and replicate; the first one under noise bears none."""
        world = [] if self.z is None else [f"z{self.z}"]
        return "".join([*world, *([f"r{self.replicate}"] if self.replicate or not world else [])])


def planned_cells(
    condition: Condition, tasks: Sequence[Task], evaluation: EvaluationConfig, seeds: SeedsConfig, seed: int
) -> Iterator[Cell]:
    """Every test task × perturbation seed that it meets, unless clean × replicate × method.

    Methods stand side by side for one task and seed, so that they meet their shared contexts at the same time.

    Args:
        seed: the partition's seed.
    """
    streams: list[tuple[int | None, int]] = [(None, replicate) for replicate in range(evaluation.clean_seeds)]
    met: dict[str, set[int]] = {}
    if condition == "noisy":
        worlds = seeds_for("test", seeds, seed)
        streams = [(z, replicate) for z in worlds for replicate in range(evaluation.noisy_seeds)]
        met = worlds_met(tasks, worlds, evaluation.worlds_per_template, seed)
    for z, replicate in streams:
        for task in tasks:
            if z is None or z in met[task.template_id]:
                for method in evaluated_methods(evaluation):
                    yield Cell(task, z, replicate, method)


def worlds_met(tasks: Sequence[Task], worlds: Sequence[int], per_template: int, seed: int) -> dict[str, set[int]]:
    """Template → the worlds that its tasks meet, ``per_template`` of them, or all where that is 0.

    Templates of a family, in a random order, are dealt hands from the worlds in another random order, round and round:
    over any run of templates no two worlds were met by numbers of a family's templates that differ by more than one.
    An incomplete block design with the templates as blocks; what the incompleteness confounds, a world's rate with the
    tasks that met it, is adjusted for afterwards (:mod:`r2v_core.evaluation.adjusted`).

    Args:
        seed: the partition's seed, from which both orders are drawn.

    Raises:
        R2VError: if a template is to meet more worlds than there are.
    """
    families = {task.template_id: task.family for task in tasks}
    if not per_template:
        return {template: set(worlds) for template in families}
    if per_template > len(worlds):
        raise R2VError(
            f"evaluation.worlds_per_template is {per_template}, but perturbations.seeds.test gives {len(worlds)} "
            "worlds; lower the first or raise the second"
        )
    met: dict[str, set[int]] = {}
    for family in sorted(set(families.values())):
        templates = sorted(template for template, its in families.items() if its == family)
        random = rng(seed, "worlds met", family)
        random.shuffle(templates)
        order: list[int] = []
        for template in templates:
            hand: set[int] = set()
            while len(hand) < per_template:
                if not order:
                    order = [int(z) for z in random.permutation(worlds)]
                    # what the template holds already goes to the back of the new pack
                    order.sort(key=lambda z: z in hand)
                hand.add(order.pop(0))
            met[template] = hand
    return met
