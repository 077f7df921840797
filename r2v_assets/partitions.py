"""The two partition dimensions, made from ``configs/experiments.yaml``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import dagster as dg

from r2v_assets.project import experiments, seeds
from r2v_core.errors import R2VError, nearest
from r2v_core.partition import Partition

EXPERIMENT = "experiment"
SEED = "seed"


def check_partition(key: str) -> Partition:
    """Parse a partition key and look it up in the project's experiments and seeds.

    Raises:
        R2VError: for another form, an unknown experiment, or an unknown seed.
    """
    return _check(key, experiments(), seeds())


def _check(key: str, known: Iterable[str], known_seeds: Iterable[int]) -> Partition:
    partition = Partition.parse(key)
    if partition.experiment not in known:
        raise R2VError(
            f"unknown partition '{key}': configs/experiments.yaml has no experiment "
            f"'{partition.experiment}'.{nearest(partition.experiment, known)}"
        )
    if partition.seed not in known_seeds:
        raise R2VError(
            f"unknown partition '{key}': configs/experiments.yaml has the seeds "
            f"{', '.join(map(str, known_seeds))}; add this one there"
        )
    return partition


class ExperimentPartitions(dg.MultiPartitionsDefinition):
    """Every experiment × seed; a key that is not among them is refused in one readable line."""

    def __init__(self, known: Iterable[str], known_seeds: Iterable[int]) -> None:
        self.known, self.known_seeds = list(known), list(known_seeds)
        super().__init__(
            {
                EXPERIMENT: dg.StaticPartitionsDefinition(self.known),
                SEED: dg.StaticPartitionsDefinition([str(seed) for seed in self.known_seeds]),
            }
        )

    def validate_partition_key(self, partition_key: str, context: Any) -> None:
        """Refuse an unknown key as the command line's own kind of error, so that no traceback is printed."""
        try:
            _check(str(partition_key), self.known, self.known_seeds)
        except R2VError as error:
            raise click.UsageError(str(error)) from None


PARTITIONS = ExperimentPartitions(experiments(), seeds())
