"""What is refused before the first asset of a Dagster run begins: inputs that nobody has made and nobody will make."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import dagster as dg
from pydantic import ValidationError

from r2v_assets.inputs import upstream_runs
from r2v_assets.jobs import job_name
from r2v_assets.project import root
from r2v_assets.run_config import selected
from r2v_assets.settings import RunSettings, StageConfig
from r2v_core.partition import Partition
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.inputs import check_inputs
from r2v_core.stages.merged_inputs import merged_roles
from r2v_core.stages.plan import parse_inputs
from r2v_core.stages.table import BY_ASSET

MADE_ON_DEMAND = "task_suite"
"""The one stage that an asset makes itself where it is missing, so that collection works on a bare partition."""


def stage_settings(run_config: Mapping[str, Any], asset: str) -> StageConfig:
    """What a run's config says about one asset, the settings of the whole run included."""
    resources = run_config.get("resources") or {}
    settings = RunSettings(**((resources.get("settings") or {}).get("config") or {}))
    own = ((run_config.get("ops") or {}).get(asset) or {}).get("config") or {}
    return StageConfig(**own).within(settings)


def refuse_missing_inputs(
    instance: dg.DagsterInstance, run_config: Mapping[str, Any], assets: Collection[str], partition: Partition
) -> None:
    """Stop before work if an asset of a run needs another one that is neither on disk nor made by the run.

    Raises:
        R2VError: naming what is missing and the commands that make it, or what is wrong with a configuration.
    """
    stages = [BY_ASSET[asset] for asset in assets if asset in BY_ASSET]
    made = {stage.name for stage in stages} | {MADE_ON_DEMAND}
    load = cache(lambda config, overrides: partition_config(partition, config, overrides, root()))  # mostly the same
    for stage in stages:
        try:
            settings = stage_settings(run_config, stage.asset)
        except ValidationError:
            continue  # values from the environment: Dagster resolves them when the asset begins
        loaded = load(settings.config, tuple(settings.overrides))
        named = [*parse_inputs(stage.name, settings.inputs), *merged_roles(stage, loaded.config)]
        leave_out = [*named, *(role for role, upstream in stage.inputs if upstream in made)]
        known = upstream_runs(instance, stage, partition.key, leave_out)
        check_inputs(stage, loaded, partition, root(), leave_out, known)


def assets_of(run: dg.DagsterRun) -> list[str]:
    """The assets that a run makes; none are named for a job of many as a whole, which lacks nothing."""
    return selected(run) or [asset for asset in BY_ASSET if run.job_name == job_name(asset)]
