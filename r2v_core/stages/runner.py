"""Running a planned stage: lock, manifest, result, and what happens when it fails or is stopped."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from r2v_core.config import config_snapshot
from r2v_core.console import say
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError, TransientError
from r2v_core.partition import Partition
from r2v_core.runs import processes, stopping
from r2v_core.runs.artifacts import digests
from r2v_core.runs.directories import relative_to
from r2v_core.runs.locks import LOCK_NAME, held_by, note_writer, shards_alive
from r2v_core.runs.manifest import (
    IMPORT,
    MANIFEST_NAME,
    MERGE,
    RunManifest,
    read_manifest,
    sweep_temporaries,
    utc_now,
    write_manifest,
)
from r2v_core.runs.memory import FOLDER as MEMORY
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageFunction, StageResult, StageSpec, load_upstream
from r2v_core.runs.stopping import Stopped
from r2v_core.runs.storage import StorageError, reserve, storage_error
from r2v_core.stages.at_work import refuse_if_begun_before
from r2v_core.stages.table import get_stage
from r2v_core.teachers.budget import BudgetSpent


def stage_function(name: str) -> StageFunction:
    """Import a stage's function (this is where torch and the like are loaded)."""
    module, _, attribute = get_stage(name).function.partition(":")
    function: StageFunction = getattr(import_module(module), attribute)
    return function


def execute(spec: StageSpec, report: Reporter) -> RunManifest:
    """Run a planned stage and return its final manifest.

    The manifest is written at the start (``running``) and at the end: ``done``, ``partial`` (stopped or out of budget,
    resumable) or ``failed`` with the error. Exceptions pass through after the manifest is written.

    Raises:
        R2VError: if another process is writing this run, or for anything the stage's user can fix.
    """
    run_dir = Path(spec.run_dir)
    if processes.count() > 1 and not get_stage(spec.stage).shared:
        raise R2VError(
            f"stage '{spec.stage}' runs in one process, not in {processes.count()}; start it without a launcher"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    with held_by(run_dir / LOCK_NAME, f"run '{spec.run_id}'"), stopping.listening(), stopping.held():
        if shards_alive(run_dir):
            raise R2VError(f"shards of run '{spec.run_id}' are being played right now; it can be finished after them")
        return _execute_locked(spec, run_dir, report)


def run_worker(spec: StageSpec, report: Reporter) -> None:
    """Run a helper process's part of a planned stage; the main process's :func:`execute` does the rest."""
    with stopping.listening(), suppress(processes.PartDone):
        stage_function(spec.stage)(open_context(spec, Path(spec.run_dir), report))


def _execute_locked(spec: StageSpec, run_dir: Path, report: Reporter) -> RunManifest:
    sweep_temporaries(run_dir)
    note_writer(run_dir)
    manifest = begin(spec, run_dir)
    write_manifest(manifest, run_dir)
    refuse_if_begun_before(spec, manifest)
    reserve(run_dir)
    began = time.monotonic()
    report.log(f"{'resuming' if spec.resumed else 'starting'} run {spec.run_id} for {spec.partition}")
    try:
        context = open_context(spec, run_dir, report)
        for role, run in context.inputs.items():
            if run.manifest.stage == IMPORT:
                counts = run.manifest.counts
                report.log(
                    f"{role}: {counts['kept']:.0f} episodes of {run.manifest.config['import']['file']}; left out: "
                    f"{counts['held_out']:.0f} of held-out templates, {counts['other_split']:.0f} of another split; "
                    f"{counts['unknown_template']:.0f} are of templates that the task suite does not know"
                )
            if run.manifest.stage == MERGE:
                counts = run.manifest.counts
                report.log(
                    f"{role}: {run.manifest.run_id}, {counts['kept']:.0f} episodes of {counts['sources']:.0f} runs, "
                    f"{counts['dropped']:.0f} left out"
                )
        with stopping.at_once():
            result = stage_function(spec.stage)(context)
        manifest = _finish(_with_result(manifest, result, run_dir), run_dir, began, status=result.status, error=None)
    except (KeyboardInterrupt, Stopped) as stop:
        error = str(stop) or "stopped by SIGINT"
        _end_early(manifest, run_dir, began, status="partial", error=error)
        report.log(f"{error}; what is done is kept in {manifest.output_dir}, and the same command resumes it")
        if isinstance(stop, Stopped):
            stop.told = True
        raise
    except BaseException as error:
        shown = storage_error(error, run_dir) or error
        resumable = isinstance(shown, (BudgetSpent, TransientError, StorageError))
        detail = str(shown) if isinstance(shown, R2VError) else traceback.format_exception_only(error)[-1].strip()
        _end_early(manifest, run_dir, began, status="partial" if resumable else "failed", error=detail)
        if shown is error:
            raise
        raise shown from error
    _remove_scratch(run_dir, (MEMORY, *result.scratch))
    report.log(f"{manifest.status} in {manifest.wall_time_s:.1f} s · digest {manifest.digest[:12]}")
    return manifest


def _remove_scratch(run_dir: Path, names: Iterable[str]) -> None:
    """Remove what only an unfinished run needs."""
    for path in (run_dir / name for name in names):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def open_context(spec: StageSpec, run_dir: Path, report: Reporter) -> StageContext:
    """What the stage's function is given; its inputs are checked."""
    project = Path(spec.project)
    cache = project / spec.config.paths.cache
    cache.mkdir(parents=True, exist_ok=True)
    return StageContext(
        spec=spec,
        config=spec.config,
        partition=Partition.parse(spec.partition),
        run_dir=run_dir,
        cache=cache,
        project=project,
        inputs=load_upstream(spec),
        report=report,
    )


def begin(spec: StageSpec, run_dir: Path) -> RunManifest:
    """The manifest of a planned run that begins now or goes on."""
    partition = Partition.parse(spec.partition)
    snapshot = config_snapshot(spec.config)
    earlier = read_manifest(run_dir) if (run_dir / MANIFEST_NAME).exists() else None
    return RunManifest(
        run_id=spec.run_id,
        stage=spec.stage,
        benchmark=partition.benchmark,
        provider=spec.provider,
        model=spec.model,
        seed=partition.seed,
        partition=partition.key,
        variant=partition.variant,
        status="running",
        created_at=earlier.created_at if earlier else utc_now(),
        output_dir=relative_to(run_dir, Path(spec.project)),
        config_path=spec.config_path,
        config=snapshot,
        config_digest=digest_of(snapshot),
        overrides=spec.overrides,
        fingerprint=spec.fingerprint,
        code_version=get_stage(spec.stage).version,
        git_commit=_git_commit(Path(spec.project)),
        inputs=spec.inputs,
        wall_time_s=earlier.wall_time_s if earlier else 0.0,
        host=platform.node(),
        slurm_job_id=os.environ.get("SLURM_ARRAY_JOB_ID" if processes.shard() else "SLURM_JOB_ID"),
        dagster_run_id=os.environ.get("R2V_DAGSTER_RUN_ID"),
        tags=spec.tags,
        notes=spec.notes,
    )


def _with_result(manifest: RunManifest, result: StageResult, run_dir: Path) -> RunManifest:
    return manifest.model_copy(
        update={
            "digest": result.digest,
            "artifacts": result.artifacts,
            "artifact_digests": digests(run_dir, result.artifacts),
            "n_episodes": result.n_episodes,
            "n_success": result.n_success,
            "n_steps": result.n_steps,
            "counts": result.counts,
            "cost_usd": result.cost_usd,
            "inputs": [*manifest.inputs, *result.inputs],
        }
    )


def _finish(manifest: RunManifest, run_dir: Path, began: float, *, status: str, error: str | None) -> RunManifest:
    final = manifest.model_copy(
        update={
            "status": status,
            "error": error,
            "finished_at": utc_now(),
            "wall_time_s": round(manifest.wall_time_s + time.monotonic() - began, 3),
        }
    )
    sweep_temporaries(run_dir)
    write_manifest(final, run_dir)
    return final


def _end_early(manifest: RunManifest, run_dir: Path, began: float, *, status: str, error: str) -> None:
    """The last manifest of a run that is not done. Where it can't be written, the next one who looks writes it."""
    with suppress(OSError):
        _finish(manifest, run_dir, began, status=status, error=error)


def _git_commit(project: Path) -> str | None:
    command = ["git", "-C", str(project), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def exit_with(error: BaseException) -> int:
    """Print an error as its reader needs it and return the process's exit status."""
    error = storage_error(error) or error
    if isinstance(error, R2VError):
        say(f"error: {error}", error=True)
        return TransientError.STATUS if isinstance(error, TransientError) else 2
    if isinstance(error, Stopped) and not error.told:
        say(f"{error}; nothing had begun yet", error=True)
    if isinstance(error, (KeyboardInterrupt, Stopped)):
        return error.status if isinstance(error, Stopped) else 130
    traceback.print_exception(type(error), error, error.__traceback__)
    return 1
