"""Materialise a partition's assets one after the other, leaving out what is up to date. What ``r2v demo`` runs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape

from r2v_assets.checks import BLOCKING
from r2v_assets.dagster_adapter import interrupted, materialize_here
from r2v_assets.inputs import upstream_runs
from r2v_assets.instance import open_instance
from r2v_assets.jobs import job_name, stage_run_config
from r2v_assets.project import root, workspace_file
from r2v_assets.runless import report_run
from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage
from r2v_core.stages.inputs import find_inputs
from r2v_core.stages.merged_inputs import merged_roles
from r2v_core.stages.table import BY_ASSET, pipeline
from r2v_core.stages.up_to_date import run_up_to_date

LAUNCHER_TAG = "r2v/launcher_pid"
HOST_TAG = "r2v/launcher_host"


def materialize_partition(
    partition: Partition,
    loaded: LoadedConfig,
    settings: dict[str, Any],
    console: Console,
    *,
    assets: Sequence[str] | None = None,
    only: Collection[str] | None = None,
    force: bool = False,
) -> int:
    """Bring assets of one partition up to date on the project's Dagster instance, in dependency order.

    Args:
        loaded: the configuration that ``settings`` name; used to see what is up to date.
        settings: fields of :class:`r2v_assets.settings.StageConfig` given to every asset.
        assets: which ones (default: every asset of the stage table whose stage is not switched off).
        only: of these assets, those that this call is to make; what it prints counts all of them.
        force: run everything again.

    Returns:
        number of assets that were run.

    Raises:
        R2VError: with the failed stage's own error.
        KeyboardInterrupt: if it was stopped, saying what is left; the stage's process has ended then.
    """
    stages = chosen_stages(loaded, assets)
    ran = 0
    with open_instance() as instance:
        _bury_killed_launchers(instance)
        for n, stage in enumerate(stages, start=1):
            if only is not None and stage.asset not in only:
                continue
            label = f"[bold]\\[{n}/{len(stages)}] {stage.asset}[/]"
            done = None if force else up_to_date(instance, stage, partition, loaded)
            if done is not None:
                report_run(instance, stage.asset, partition.key, done)
                console.print(f"{label} is up to date [dim]({escape(done.manifest.run_id)})[/]")
                continue
            console.print(f"{label} · {stage.title}")
            began = time.monotonic()
            _materialize_one(instance, stage, partition, settings, console)
            console.print(f"      [green]done[/] in {time.monotonic() - began:.0f} s")
            ran += 1
    return ran


def chosen_stages(loaded: LoadedConfig, assets: Collection[str] | None) -> list[Stage]:
    """The stages of some assets, by default of all that have anything to do, in dependency order."""
    if assets is None:
        return pipeline(loaded.config)
    return [stage for stage in BY_ASSET.values() if stage.asset in assets]


def up_to_date(
    instance: dg.DagsterInstance, stage: Stage, partition: Partition, loaded: LoadedConfig
) -> UpstreamRun | None:
    """The newest finished run of a stage, if its code, config and inputs are today's and its files are there."""
    try:
        known = upstream_runs(instance, stage, partition.key, merged_roles(stage, loaded.config))
        inputs = find_inputs(stage, loaded, partition, root(), {}, known)
    except R2VError:
        return None  # an input is missing, so this is too; running says so
    return run_up_to_date(stage, loaded, partition, root(), inputs)


def _materialize_one(
    instance: dg.DagsterInstance, stage: Stage, partition: Partition, settings: dict[str, Any], console: Console
) -> None:
    from r2v_assets.definitions import defs

    result = materialize_here(
        defs.resolve_job_def(job_name(stage.asset)),
        stage.asset,
        instance,
        workspace_file(),
        partition_key=partition.key,
        run_config={
            **stage_run_config([stage.asset], settings),
            "resources": {"compute": {"config": {"echo": True}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        tags={LAUNCHER_TAG: str(os.getpid()), HOST_TAG: platform.node()},
    )
    for event in result.all_events:
        if event.is_step_failure and event.step_key == stage.asset:
            if interrupted(event):
                raise KeyboardInterrupt(failure_text(event))
            raise R2VError(failure_text(event))
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            console.print(f"      [yellow]check {check.check_name}:[/] {escape(check.description or '')}")
        if not check.passed and check.check_name in BLOCKING:
            raise R2VError(f"{stage.asset} failed its check '{check.check_name}': {check.description}")
    if not result.success:
        broken = next(event for event in result.all_events if event.is_step_failure)
        console.print(f"      [yellow]{broken.step_key} could not be evaluated:[/] {escape(failure_text(broken))}")


def failure_text(event: dg.DagsterEvent) -> str:
    """Why a step failed: the stage's own error where there is one, else the innermost exception."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "unknown error"


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else True


def _bury_killed_launchers(instance: dg.DagsterInstance) -> None:
    """Mark runs as failed whose launching process was killed; Dagster would show them as running for ever."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        pid = run.tags.get(LAUNCHER_TAG)
        here = run.tags.get(HOST_TAG, platform.node()) == platform.node()  # another machine's processes can't be seen
        if pid is not None and here and not _alive(int(pid)):
            instance.report_run_failed(run, f"the process that ran it ({pid}) was killed")
