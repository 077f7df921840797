"""Two runs of the same thing at once: the second one says who is at work, or waits and takes the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.directories import iter_runs
from r2v_core.runs.locks import is_alive, writer
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest
from r2v_core.runs.spec import StageSpec, UpstreamRun
from r2v_core.stages.table import get_stage

POLL_S = 2.0


class AtWorkError(R2VError):
    """Another process is making what this one was asked to make."""

    def __init__(self, run: UpstreamRun) -> None:
        manifest = run.manifest
        who = f"job {manifest.slurm_job_id} on {manifest.host}" if manifest.slurm_job_id else writer(run.directory)
        super().__init__(
            f"run {manifest.run_id} is making this already ({who or manifest.host}, since {manifest.created_at[:19]}Z)"
            ": same config, code and inputs; wait for it and use its result with --wait (in Dagster: wait: true)"
        )
        self.run = run


def refuse_if_at_work(spec: StageSpec) -> None:
    """Stop before work if a process, here or on another node of the cluster, makes the same thing right now.

    The directory that was made for the planned run goes, if nothing is in it. A process holds a lock in the directory
    of the run that it writes; folders that nodes share have to pass locks on (NFS does).

    Raises:
        AtWorkError: naming the run.
    """
    if (other := _other(spec)) is not None:
        with suppress(OSError):
            Path(spec.run_dir).rmdir()
        raise AtWorkError(other)


def refuse_if_begun_before(spec: StageSpec, own: RunManifest) -> None:
    """As :func:`refuse_if_at_work`, for a run that has begun: of two that began at once the older one goes on.

    Raises:
        AtWorkError: naming the other run; this one's manifest is gone if it was new.
    """
    other = _other(spec)
    if other is None or (own.created_at, own.run_id) < (other.manifest.created_at, other.manifest.run_id):
        return
    if not spec.resumed:
        (Path(spec.run_dir) / MANIFEST_NAME).unlink(missing_ok=True)
    raise AtWorkError(other)


def wait_for(run: UpstreamRun, log: Callable[[str], None], check: Callable[[], None] = lambda: None) -> RunManifest:
    """Block until nobody works on a run any more; its manifest then.

    Args:
        check: called every two seconds; raises to stop waiting.
    """
    log(f"waiting for run {run.manifest.run_id}, which is making this on {run.manifest.host}")
    while is_alive(run.directory):
        check()
        time.sleep(POLL_S)
    manifest = read_manifest(run.directory)
    what = "its result is used" if manifest.status == "done" else "it is resumed from there"
    log(f"run {manifest.run_id} ended as {manifest.status}; {what}")
    return manifest


def _other(spec: StageSpec) -> UpstreamRun | None:
    """The oldest other run with this fingerprint that a process is writing."""
    partition, project = Partition.parse(spec.partition), Path(spec.project)
    running = iter_runs(
        project, spec.config.paths, get_stage(spec.stage), partition.experiment, partition.seed, "running"
    )
    alive = [
        run
        for run in running
        if run.manifest.fingerprint == spec.fingerprint
        and run.manifest.run_id != spec.run_id
        and is_alive(run.directory)
    ]
    return min(alive, key=lambda run: (run.manifest.created_at, run.manifest.run_id), default=None)
