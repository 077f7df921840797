"""The two partition dimensions, made from ``configs/experiments.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import dagster as dg

from r2v_assets.project import experiments
from r2v_core.errors import R2VError, nearest
from r2v_core.partition import Partition
from r2v_core.stages.experiments import Experiment

BENCHMARK_TEACHER = "benchmark_teacher"
SEED = "seed"


def check_partition(key: str, known: Mapping[str, Experiment]) -> Partition:
    """Parse a partition key and look it up in the list of experiments.

    Raises:
        R2VError: for another form, an unknown experiment, or a seed that the experiment does not list.
    """
    partition = Partition.parse(key)
    if partition.benchmark_teacher not in known:
        raise R2VError(
            f"unknown partition '{key}': configs/experiments.yaml has no experiment "
            f"'{partition.benchmark_teacher}'.{nearest(partition.benchmark_teacher, known)}"
        )
    seeds = known[partition.benchmark_teacher].seeds
    if partition.seed not in seeds:
        raise R2VError(
            f"unknown partition '{key}': '{partition.benchmark_teacher}' has the seeds {', '.join(map(str, seeds))}; "
            "add the seed in configs/experiments.yaml"
        )
    return partition


def refuse_ranges(arguments: Sequence[str]) -> None:
    """Answer ``--partition-range`` in one line; Dagster's own answer is a traceback.

    Raises:
        click.UsageError: if the command line asks for a range.
    """
    if any(argument.partition("=")[0] == "--partition-range" for argument in arguments):
        raise click.UsageError(
            "--partition-range: each partition is a run of its own; select partitions in the UI (Materialize), or use "
            "dagster job backfill"
        )


class ExperimentPartitions(dg.MultiPartitionsDefinition):
    """Every experiment × seed; a key that is not among them is refused in one readable line."""

    def __init__(self, known: Mapping[str, Experiment]) -> None:
        self.known = known
        seeds = sorted({seed for experiment in known.values() for seed in experiment.seeds})
        super().__init__(
            {
                BENCHMARK_TEACHER: dg.StaticPartitionsDefinition(list(known)),
                SEED: dg.StaticPartitionsDefinition([str(seed) for seed in seeds]),
            }
        )

    def validate_partition_key(self, partition_key: str, context: Any) -> None:
        """Refuse an unknown key as the command line's own kind of error, so that no traceback is printed."""
        try:
            check_partition(str(partition_key), self.known)
        except R2VError as error:
            raise click.UsageError(str(error)) from None


PARTITIONS = ExperimentPartitions(experiments())
