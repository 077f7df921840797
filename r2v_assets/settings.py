"""What can be said about a materialisation: for one asset (its config), or for all of a run (``RunSettings``).

The launchpad shows fields whose default is not null, so "as in the config" is written as an empty string or -1.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of config and resources as they are

from typing import Any

import dagster as dg
from pydantic import Field

UNSET = -1
COMMON = {
    "slm": "slm.model",
    "parallel": "agent.parallel",
    "budget_usd": "teacher.limits.budget_usd",
    "budget_calls": "teacher.limits.budget_calls",
}
"""Settings of a run with a field of their own → config key. Everything else is set by ``overrides``."""


def _given(value: object) -> bool:
    """Whether a field was filled in."""
    return value not in ("", UNSET)


class ClusterConfig(dg.Config):
    """What SLURM jobs ask for, as in configs/slurm/*.yaml. What is left as it is (empty, -1) the profile decides."""

    partition: str = Field(default="", description="SLURM partition (queue)")
    gpus: int = Field(default=UNSET, ge=UNSET, description="GPUs on one node")
    gpu_type: str = Field(default="", description="GPU type as SLURM knows it, e.g. a100")
    cpus: int = Field(default=UNSET, ge=UNSET, description="CPU cores")
    memory: str = Field(default="", description="memory of the job, e.g. 32G")
    time: str = Field(default="", description="time limit, e.g. 12:00:00")
    account: str = Field(default="", description="account that is charged")
    qos: str = Field(default="", description="quality of service")
    constraint: str = Field(default="", description="node features, as sbatch --constraint takes them")


class _Settings(dg.Config):
    """What an asset's config and the run's settings share."""

    config: str = Field(default="", description="YAML file (empty: $R2V_CONFIG, else the experiment's own)")
    overrides: list[str] = Field(default=[], description="dotted overrides, e.g. training.bc.max_steps=5")
    tags: list[str] = Field(default=[], description="tags for the registry")
    notes: str = Field(default="", description="free text for the registry")
    cluster: ClusterConfig = Field(default=ClusterConfig(), description="what SLURM jobs ask for, this time only")

    def resources(self) -> dict[str, Any]:
        """The cluster resources that are asked for."""
        return {name: value for name, value in self.cluster.model_dump().items() if _given(value)}


class RunSettings(dg.ConfigurableResource, _Settings):
    """Settings of every asset of a Dagster run: ``resources: {settings: {config: …}}`` in the run config."""

    slm: str = Field(default="", description="small model (slm.model): packaged name, local path or hub id")
    parallel: int = Field(default=UNSET, ge=UNSET, description="episodes rolled out side by side (agent.parallel)")
    budget_usd: float = Field(
        default=UNSET, ge=UNSET, description="dollars allowed (teacher.limits.budget_usd); -1: as in the config"
    )
    budget_calls: int = Field(
        default=UNSET, ge=UNSET, description="teacher calls allowed (teacher.limits.budget_calls); -1: as in the config"
    )

    def config_lines(self) -> list[str]:
        """All that changes the configuration, as ``key=value``; what is written as an override counts last."""
        given = {key: getattr(self, name) for name, key in COMMON.items()}
        return [*(f"{key}={value}" for key, value in given.items() if _given(value)), *self.overrides]


class StageConfig(_Settings):
    """Settings of one asset. They count more than those of the run."""

    inputs: list[str] = Field(
        default=[], description="ROLE=RUN_DIR: read this run instead of the newest one; for episodes also a FILE.jsonl"
    )
    extend: str = Field(
        default="", description="finished run of this asset (directory or id) to build on: more steps, more episodes"
    )
    run_id: str = Field(default="", description="continue this run, or create one under this name")
    wait: bool = Field(
        default=False, description="if another process is making the same thing: wait for it and use its result"
    )
    resume: bool = Field(default=True, description="resume an interrupted run with the same config and inputs")

    def within(self, run: RunSettings) -> "StageConfig":
        """These settings on top of those of the whole run."""
        return StageConfig(
            config=self.config or run.config,
            overrides=[*run.config_lines(), *self.overrides],
            tags=list(dict.fromkeys([*run.tags, *self.tags])),
            notes=self.notes or run.notes,
            cluster=ClusterConfig(**{**run.resources(), **self.resources()}),
            inputs=self.inputs,
            extend=self.extend,
            run_id=self.run_id,
            wait=self.wait,
            resume=self.resume,
        )
