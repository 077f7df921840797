"""Where files are kept, and the tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from r2v_core.config.sections.base import Count, Positive, Section

Split = Literal["train", "router", "validation", "test", "teacher"]
SPLIT_SIZES: dict[Split, int] = {"train": 24, "router": 8, "validation": 8, "test": 8, "teacher": 0}


def _only_teacher_empty(splits: dict[Split, int]) -> dict[Split, int]:
    """Refuse a split without tasks, but for that of a teacher that is trained here."""
    if empty := [split for split, count in splits.items() if not count and split != "teacher"]:
        raise ValueError(f"{empty[0]} is 0; every split but teacher needs 1 template or more")
    return splits


class PathsConfig(Section):
    """Where files are kept, relative to the project root. ${oc.env:VAR,default} reads an environment variable."""

    data: str = Field("data", description="run directories go to <data>/runs/<run_id>")
    outputs: str = Field("outputs", description="checkpoints and evaluation traces")
    results: str = Field("results/default", description="tables go to <results>/structured_results")
    cache: str = Field("data/cache", description="games and converted models; safe to delete")


class BenchmarkConfig(Section):
    """The tasks."""

    name: str = Field("textworld", description="name of a benchmark (r2v benchmarks lists them)")
    max_steps: Positive = Field(20, description="environment steps after which an episode ends")
    splits: Annotated[dict[Split, Count], AfterValidator(_only_teacher_empty)] = Field(
        default_factory=SPLIT_SIZES.copy,
        description="number of task templates per split, none of which is in two: train for policy and verifier, "
        "router for the rollouts that the router learns from, validation for thresholds, test for reported numbers, "
        "teacher for a teacher that is trained here (stage train_teacher), otherwise 0",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the benchmark's own keys, which it checks")
