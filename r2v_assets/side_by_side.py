"""Materialise a partition's assets, at the same time those that do not depend on each other: what an orchestrator does.

Each of several at a time is made by a process of its own (``python -m r2v_assets.slurm_run --only <asset>``), as each
is a Dagster run of its own; an asset that nothing runs beside is made here.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console

from r2v_assets.choice import stages_at_once
from r2v_assets.instance import open_instance
from r2v_assets.materialize import chosen_stages, materialize_partition, up_to_date
from r2v_core.config import Config, LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.stage import Stage
from r2v_core.stages.table import inputs_of

POLL_S = 0.5
"""How often it is asked whether a process has ended, seconds."""


def materialize_side_by_side(
    partition: Partition,
    loaded: LoadedConfig,
    settings: dict[str, Any],
    console: Console,
    *,
    assets: Sequence[str] | None = None,
) -> int:
    """As :func:`r2v_assets.materialize.materialize_partition`, up to ``R2V_STAGES_AT_ONCE`` stages at a time.

    Where one fails, those that have begun go on to their end, and no other begins.

    Raises:
        R2VError: with the failed stage's own error; where its process has printed that, with its name.
        KeyboardInterrupt: if it was stopped; the processes are asked to end, too, and waited for.
    """
    waiting = {stage.name: stage for stage in chosen_stages(loaded, assets)}
    at_once = stages_at_once()
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    ran = 0
    try:
        while running or (waiting and not failed):
            begin = [] if failed else ready(waiting, running, loaded.config)[: at_once - len(running)]
            for name in begin:
                stage = waiting.pop(name)
                if (len(begin) == 1 and not running) or _is_up_to_date(stage, partition, loaded):
                    ran += materialize_partition(
                        partition, loaded, settings, console, assets=assets, only=[stage.asset]
                    )
                else:
                    running[name] = subprocess.Popen(_command(partition, settings, assets, stage.asset))
                    ran += 1
            ended = [name for name, process in running.items() if process.poll() is not None]
            failed += [name for name in ended if running.pop(name).returncode]
            if running and not ended:
                time.sleep(POLL_S)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if failed:
        raise R2VError(f"{', '.join(failed)}: failed, for the reason above; run it again when that is mended")
    return ran


def ready(waiting: Mapping[str, Stage], running: Collection[str], config: Config) -> list[str]:
    """The stages that wait for none of those that wait or run, in the pipeline's order."""
    unmade = {*waiting, *running}
    return [
        name
        for name, stage in waiting.items()
        if not unmade.intersection(upstream for _, upstream in inputs_of(stage, config))
    ]


def _is_up_to_date(stage: Stage, partition: Partition, loaded: LoadedConfig) -> bool:
    with open_instance() as instance:
        return up_to_date(instance, stage, partition, loaded) is not None


def _command(partition: Partition, settings: Mapping[str, Any], assets: Sequence[str] | None, only: str) -> list[str]:
    """The command line that makes one of the assets."""
    options = [("partition", partition.key), ("config", settings["config"]), ("only", only)]
    options += [("overrides", given) for given in settings["overrides"]]
    options += [("asset", asset) for asset in assets or ()]
    command = [sys.executable, "-m", "r2v_assets.slurm_run"]
    return command + [word for name, value in options for word in (f"--{name}", value)]
