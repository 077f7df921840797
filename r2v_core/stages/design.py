"""The design of an evaluation: which task is played by which method under which noise. Pure; loads no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from r2v_core.agent.rules.table import evaluated_methods
from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import EvaluationConfig, SeedsConfig
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
        """Short name of the noise or replicate."""
        return f"r{self.replicate}" if self.z is None else f"z{self.z}"


def planned_cells(
    condition: Condition, tasks: Sequence[Task], evaluation: EvaluationConfig, seeds: SeedsConfig, seed: int
) -> Iterator[Cell]:
    """Every test task × perturbation seed (or replicate, where clean) × method.

    Methods stand side by side for one task and seed, so that they meet their shared contexts at the same time.

    Args:
        seed: the partition's seed.
    """
    streams: list[tuple[int | None, int]] = [(None, replicate) for replicate in range(evaluation.clean_seeds)]
    if condition == "noisy":
        streams = [(z, 0) for z in seeds_for("test", seeds, seed)]
    for z, replicate in streams:
        for task in tasks:
            for method in evaluated_methods(evaluation):
                yield Cell(task, z, replicate, method)
