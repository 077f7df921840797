"""What can be said about a materialisation: for one asset (its config), or for all of a run (``RunSettings``)."""

# no `from __future__ import annotations`: Dagster reads the annotations of config and resources as they are

from typing import Any

import dagster as dg
from pydantic import Field

COMMON = {
    "slm": "slm.model",
    "parallel": "agent.parallel",
    "budget_usd": "teacher.limits.budget_usd",
    "budget_calls": "teacher.limits.budget_calls",
}
"""Settings with a field of their own → config key. Everything else is set by ``overrides``."""


class ClusterConfig(dg.Config):
    """What SLURM jobs of this run ask for, as in configs/slurm/*.yaml. What is left out comes from the profile."""

    partition: str | None = Field(default=None, description="SLURM partition (queue)")
    gpus: int | None = Field(default=None, ge=0, description="GPUs on one node")
    gpu_type: str | None = Field(default=None, description="GPU type as SLURM knows it, e.g. a100")
    cpus: int | None = Field(default=None, ge=1, description="CPU cores")
    memory: str | None = Field(default=None, description="memory of the job, e.g. 32G")
    time: str | None = Field(default=None, description="time limit, e.g. 12:00:00")
    account: str | None = Field(default=None, description="account that is charged")
    qos: str | None = Field(default=None, description="quality of service")
    constraint: str | None = Field(default=None, description="node features, as sbatch --constraint takes them")


class _Settings(dg.Config):
    """What an asset's config and the run's settings share. All have defaults, so that the launchpad shows them."""

    config: str | None = Field(default=None, description="YAML file (default: $R2V_CONFIG, else the experiment's own)")
    slm: str | None = Field(default=None, description="small model (slm.model): packaged name, local path or hub id")
    parallel: int | None = Field(default=None, ge=1, description="episodes rolled out side by side (agent.parallel)")
    budget_usd: float | None = Field(default=None, ge=0, description="dollars allowed (teacher.limits.budget_usd)")
    budget_calls: int | None = Field(
        default=None, ge=0, description="teacher calls allowed (teacher.limits.budget_calls)"
    )
    overrides: list[str] = Field(default=[], description="dotted overrides, e.g. training.bc.max_steps=5")
    tags: list[str] = Field(default=[], description="tags for the registry")
    notes: str = Field(default="", description="free text for the registry")
    cluster: ClusterConfig = Field(default=ClusterConfig(), description="what SLURM jobs ask for, this time only")

    def config_lines(self) -> list[str]:
        """All that changes the configuration, as ``key=value``; what is written as an override counts last."""
        given = {key: getattr(self, name) for name, key in COMMON.items()}
        return [*(f"{key}={value}" for key, value in given.items() if value is not None), *self.overrides]

    def resources(self) -> dict[str, Any]:
        """The cluster resources that are asked for."""
        return self.cluster.model_dump(exclude_none=True)


class StageConfig(_Settings):
    """Settings of one asset. They count more than those of the run."""

    inputs: list[str] = Field(
        default=[], description="ROLE=RUN_DIR: read this run instead of the newest one; for episodes also a FILE.jsonl"
    )
    extend: str | None = Field(
        default=None, description="finished run of this asset (directory or id) to build on: more steps, more episodes"
    )
    run_id: str | None = Field(default=None, description="continue this run, or create one under this name")
    resume: bool = Field(default=True, description="take up an interrupted run with the same config and inputs")

    def within(self, run: "RunSettings") -> "StageConfig":
        """These settings on top of those of the whole run."""
        return StageConfig(
            config=self.config or run.config,
            overrides=[*run.config_lines(), *self.config_lines()],
            tags=list(dict.fromkeys([*run.tags, *self.tags])),
            notes=self.notes or run.notes,
            cluster=ClusterConfig(**{**run.resources(), **self.resources()}),
            inputs=self.inputs,
            extend=self.extend,
            run_id=self.run_id,
            resume=self.resume,
        )


class RunSettings(dg.ConfigurableResource, _Settings):
    """Settings of every asset of a Dagster run: ``resources: {settings: {config: …}}`` in the run config."""
