"""A run that is stopped: by *Terminate* in the UI, by Ctrl-C, with Dagster itself.

Dagster interrupts a run's process once. If that is lost (DuckDB and finalisers ignore what a signal's handler raises),
the run would go on, so a stage's process is watched by somebody who also looks whether the run is being cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from r2v_assets.dagster_adapter import StoppedElsewhere
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest
from r2v_core.runs.spec import StageSpec
from r2v_core.runs.stopping import Stopped
from r2v_core.stages.table import get_stage

INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError, Stopped)


def cancelled(context: dg.AssetExecutionContext) -> bool:
    """Whether somebody has cancelled the run. Storage that does not answer right now says nothing about that."""
    try:
        run = context.instance.get_run_by_id(context.run.run_id)
    except Exception:
        return False
    return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


def end_if_cancelled(context: dg.AssetExecutionContext) -> None:
    """End here if the run was cancelled.

    Raises:
        DagsterExecutionInterruptedError: if so.
    """
    if cancelled(context):
        raise dg.DagsterExecutionInterruptedError("the run was cancelled")


@contextmanager
def told_in_one_line(context: dg.AssetExecutionContext, spec: StageSpec) -> Iterator[None]:
    """Show an interruption as what it means for the stage, and its run as cancelled: nothing has failed.

    Raises:
        StoppedElsewhere: for every interruption.
    """
    try:
        yield
    except INTERRUPTS:
        if not cancelled(context):
            context.instance.report_run_canceling(context.run, "Stopped.")
        raise StoppedElsewhere(what_is_left(spec)) from None


def what_is_left(spec: StageSpec) -> str:
    """What was stopped, what is saved, and how to go on."""
    asset, run_dir = get_stage(spec.stage).asset, Path(spec.run_dir)
    manifest = read_manifest(run_dir) if (run_dir / MANIFEST_NAME).exists() else None
    if manifest is None:
        return f"{asset} of {spec.partition} stopped before anything began; materialise it again"
    if manifest.status == "running":
        return f"{asset} of {spec.partition} goes on in {manifest.output_dir}; materialise it again to find it there"
    if manifest.status == "done":
        return f"{asset} of {spec.partition} was already done, in {manifest.output_dir}; materialise it again"
    said = manifest.error or "stopped"
    return (
        f"{asset} of {spec.partition} {said}; what is done is kept in {manifest.output_dir}; materialise it again to "
        "resume"
    )
