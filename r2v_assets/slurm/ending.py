"""What a job's end means: done, goes on in another job, or failed, and then why in words that help."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from r2v_assets.failure import StageFailure
from r2v_assets.outcome import mark_stopped, outcome
from r2v_assets.slurm.jobs import LOST_NODE, JobStatus, read_accounting
from r2v_assets.slurm.login import Login
from r2v_assets.slurm.profile import FOLDER, Profile
from r2v_assets.slurm.record import Attempt, JobRecord
from r2v_assets.slurm.script import WARNED
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest
from r2v_core.runs.spec import StageSpec
from r2v_core.stages.table import get_stage

ACCOUNTING_S = 90.0
"""How long a finished run waits for sacct's numbers before it goes on without them."""
VISIBLE_S = 30.0
"""How long a shared file system may take to show here what the job wrote there."""
_OUT_OF_MEMORY = re.compile(
    r"exceeded (job )?memory limit|oom[-_ ]kill|out[ -]of[ -]memory|Cannot allocate memory|MemoryError|"
    r"DefaultCPUAllocator: can't allocate",
    re.IGNORECASE,
)


def account(login: Login, record: JobRecord, run_dir: Path, status: JobStatus, log: dg.DagsterLogManager) -> None:
    """Write down what SLURM's accounting says of the latest job, or what little is known without it."""
    attempt = record.last
    assert attempt.job_id is not None
    facts = accounted(login, attempt.job_id, status, time.monotonic() + ACCOUNTING_S)
    if "ended_at" not in facts:
        log.warning(f"sacct does not know yet that SLURM job {attempt.job_id} has ended; its numbers will be missing")
    record.attempts[-1] = attempt.model_copy(update=facts)
    record.write(run_dir)


def accounted(login: Login, job_id: str, status: JobStatus, end: float) -> dict[str, Any]:
    """What accounting says of a job's end, asked until a moment of the monotonic clock, or what is known without it."""
    facts = None
    while facts is None:
        with suppress(R2VError):
            facts = read_accounting(login, job_id)
        if facts is None and time.monotonic() >= end:
            facts = {"state": status.state or "UNKNOWN", "nodes": status.node, "exit_code": status.exit_code}
        elif facts is None:
            time.sleep(1.0)
    return facts | {"restarts": max(status.restarts, facts.get("restarts", 0))}


def follow_up(
    context: dg.AssetExecutionContext,
    spec: StageSpec,
    profile: Profile,
    record: JobRecord,
    status: JobStatus,
    last_lines: Sequence[str],
    *,
    more: bool,
) -> str | None:
    """Decide after a job's end: None if the run is done, else why the run goes on in another job.

    Args:
        more: whether another job is allowed.

    Raises:
        StageFailure: if it does not.
    """
    run_dir, job_id = Path(spec.run_dir), record.last.job_id
    if _is_done(run_dir, wait=status.state == "COMPLETED"):
        if status.state not in ("COMPLETED", ""):
            context.log.warning(
                f"SLURM job {job_id} ended as {status.state} after the stage was done; its result counts"
            )
        record.finished = True
        record.write(run_dir)
        return None
    why = cut_off(status)
    if why is not None and more:
        mark_stopped(run_dir, f"SLURM job {job_id} {why}")
        return f"SLURM job {job_id} {why}; the run goes on in another job where this one stopped"
    fail(spec, profile, record, record.last, status, last_lines, why)


def cut_off(status: JobStatus) -> str | None:
    """Why a job that has ended could go on; None if it ended by itself."""
    if status.state == "TIMEOUT" or status.exit_code == f"{WARNED}:0":
        return "reached its time limit"
    if status.state in LOST_NODE:
        return {"PREEMPTED": "was preempted"}.get(status.state, f"lost its node {status.node}")
    return None


def ran_out_of_memory(status: JobStatus, last_lines: Sequence[str]) -> bool:
    """Whether SLURM or a job's last lines say so."""
    return status.state == "OUT_OF_MEMORY" or any(_OUT_OF_MEMORY.search(line) for line in last_lines)


def fail(
    spec: StageSpec,
    profile: Profile,
    record: JobRecord,
    attempt: Attempt,
    status: JobStatus,
    last_lines: Sequence[str],
    why: str | None,
) -> NoReturn:
    """End a run whose job failed for good.

    Args:
        attempt: the job, one of the record's.
        why: what cut it off, if something did.

    Raises:
        StageFailure: always.
    """
    run_dir, job_id = Path(spec.run_dir), attempt.job_id
    record.finished = True
    record.write(run_dir)
    error = _explain(spec, profile, record, attempt, status, last_lines, why)
    if error is None:
        outcome(
            spec, _process_status(status.exit_code), [line for line in last_lines if not line.startswith("slurmstepd")]
        )
        error = f"SLURM job {job_id} ended as {status.state} although its stage says it is done"
    mark_stopped(run_dir, error)
    raise StageFailure(
        error,
        metadata={
            "run_id": spec.run_id,
            "run_dir": dg.MetadataValue.path(spec.run_dir),
            "slurm_job": dg.MetadataValue.json(attempt.model_dump(exclude_none=True)),
            "last_lines": dg.MetadataValue.md("```\n" + "\n".join(last_lines) + "\n```"),
        },
        allow_retries=False,
    )


def _explain(
    spec: StageSpec,
    profile: Profile,
    record: JobRecord,
    attempt: Attempt,
    status: JobStatus,
    last_lines: Sequence[str],
    why: str | None,
) -> str | None:
    """Why a job failed, where SLURM or its last lines know it better than the stage does."""
    stage, file, job_id = get_stage(spec.stage), f"{FOLDER}/{profile.name}.yaml", attempt.job_id
    asset = stage.asset
    resources = profile.resources(asset)
    again = "materialise again to resume the run where it stopped"
    if why is not None:
        return (
            f"SLURM job {job_id} {why}, as {len(record.attempts)} jobs of this run did (resubmit: {profile.resubmit} "
            f"in {file}); raise assets.{asset}.time ({resources.time}) there, or {again}"
        )
    if ran_out_of_memory(status, last_lines):
        used = attempt.model_dump().get("max_memory_mb")
        seen_mb = f", {used:.0f} MB seen" if used else ""
        lower = f", or lower {stage.memory_key}" if stage.memory_key else ""
        return (
            f"SLURM job {job_id} ran out of memory (memory: {resources.memory_text}{seen_mb}); raise "
            f"assets.{asset}.memory in {file}{lower}, then {again}"
        )
    if status.state == "CANCELLED":
        return f"SLURM job {job_id} was cancelled from outside (scancel, or an administrator); {again}"
    if status.state == "":
        return (
            f"SLURM knows nothing of job {job_id} any more, and its stage did not finish; see {attempt.log} in the "
            f"run directory, or {again}"
        )
    return None


_FATAL = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV}
"""Signals that no stage handles: it did not end itself."""


def _process_status(exit_code: str) -> int:
    """SLURM's 'status:signal' as :mod:`subprocess` gives it (negative: signal).

    A shell tells of a signal that ended its command as 128 + signal. SLURM versions show that as it is, or as the
    signal's number alone, with ':0'; no stage ends with such a small status itself.
    """
    status, number = (int(part) for part in exit_code.split(":")) if exit_code else (1, 0)
    if number:
        return -number
    if status in _FATAL or status == signal.SIGTERM:
        return -status
    return -(status - 128) if status - 128 in _FATAL else status


def _is_done(run_dir: Path, wait: bool) -> bool:
    """Whether the run's manifest says so; a shared file system may show it a little late."""
    end = time.monotonic() + (VISIBLE_S if wait else 0.0)
    while True:
        if (run_dir / MANIFEST_NAME).exists() and read_manifest(run_dir).status == "done":
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.5)
