"""Which upstream runs an asset reads: what Dagster materialised last, else what lies on disk."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import dagster as dg

from r2v_assets.project import root
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest
from r2v_core.runs.stage import Stage
from r2v_core.stages.table import STAGES

RUN_DIR = "run_dir"
"""Metadata key under which every materialisation keeps its run directory."""


def materialised_run(instance: dg.DagsterInstance, asset: str, partition: str) -> Path | None:
    """Directory of the run that the partition's latest materialisation stands for, None if there is none on disk."""
    recorded = recorded_directory(instance, asset, partition)
    if recorded is None:
        return None
    directory = relocated(recorded)
    try:
        return directory if read_manifest(directory).status == "done" else None
    except R2VError:
        return None  # deleted since


def recorded_directory(instance: dg.DagsterInstance, asset: str, partition: str) -> Path | None:
    """Where the partition's latest materialisation says that its run is."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    value = event.metadata.get(RUN_DIR) if event else None
    return None if value is None else Path(str(value.value))


def relocated(directory: Path) -> Path:
    """Where a run is now that was recorded at a path: the same folder in this project, if the checkout was moved.

    A copied checkout reads its own copy too, though the original is still there.
    """
    if directory.is_relative_to(root()) and directory.exists():
        return directory
    parts = directory.parts[1:]
    moved = (root().joinpath(*parts[n:]) for n in range(len(parts)))
    return next((path for path in moved if (path / MANIFEST_NAME).is_file()), directory)


def upstream_runs(
    instance: dg.DagsterInstance, stage: Stage, partition: str, leave_out: Collection[str] = ()
) -> dict[str, Path]:
    """Role → run directory for the inputs that Dagster knows; :func:`r2v_core.stages.plan.plan` looks for the rest.

    An instance that knows nothing (a temporary one, or a deleted one) is thus no obstacle. ``leave_out`` names roles
    that something else decides (``data.merge``).
    """
    wanted = [(role, upstream) for role, upstream in stage.inputs if role not in leave_out]
    found = {role: materialised_run(instance, STAGES[upstream].asset, partition) for role, upstream in wanted}
    return {role: directory for role, directory in found.items() if directory is not None}
