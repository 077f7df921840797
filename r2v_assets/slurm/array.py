"""A stage's shards as one job array: submit it, follow its elements, begin alone again those that were cut off.

What the elements leave in the run directory is gathered by the stage's ordinary job, which comes after them
(:mod:`r2v_core.stages.sharded`). An element that reached its time limit, lost its node or failed is put back into
SLURM's queue at once, while the others go on; SLURM itself does so with those that it preempts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from r2v_assets.outcome import mark_stopped
from r2v_assets.slurm.ending import ACCOUNTING_S, accounted, cut_off, fail, ran_out_of_memory
from r2v_assets.slurm.jobs import LOST_NODE, JobStatus, max_array_size, query_array, query_job, requeue
from r2v_assets.slurm.login import Login, UnreachableError
from r2v_assets.slurm.monitor import FIRST_POLL_S, REQUEUE_S, UNKNOWN_S, JobMonitor, Outage
from r2v_assets.slurm.profile import FOLDER, Profile
from r2v_assets.slurm.record import Attempt, JobRecord
from r2v_assets.slurm.script import Job, job_script
from r2v_assets.slurm.submission import next_attempt, submit_attempt
from r2v_core.errors import R2VError
from r2v_core.runs.spec import StageSpec
from r2v_core.stages.sharded import forget_progress, progress
from r2v_core.teachers.budget import gather_usage

TELL_S = 30.0
"""How often the log says how far the shards are."""
TAIL_BYTES = 4096
FAILURES = 1
"""How often an element is begun again after a failure that another attempt may not meet."""
TO_MEND = "2:0"
"""How an element ends that met something for its user to fix."""


def play_shards(
    context: dg.AssetExecutionContext,
    spec: StageSpec,
    profile: Profile,
    record: JobRecord,
    job: Job,
    *,
    submitted: bool,
) -> None:
    """Play a run's shards in a job array, or take up the one that is on it; returns once they all are.

    Raises:
        R2VError: if the cluster allows no such array.
        StageFailure: if an element failed for good; what all of them have made is kept.
    """
    login, run_dir = Login(profile.login), Path(spec.run_dir)
    if not submitted:
        _submit(login, spec, profile, record, job)
        context.log.info(
            f"submitted SLURM job array {record.last.job_id}, {job.name}: {record.last.shards} shards; logs: "
            f"{run_dir / str(record.last.log)}"
        )
    array = record.last
    assert array.job_id is not None and array.shards is not None
    watch = ArrayMonitor(
        login, array.job_id, profile.poll_s, context, lambda: False, job=job, shards=array.shards, profile=profile
    )
    try:
        watch.until_end()
    finally:
        if watch.cancelled:
            mark_stopped(run_dir, f"SLURM job array {array.job_id} was cancelled")
    _account(login, record, job, watch.elements, context)
    failed = [index for index, status in watch.elements.items() if status.state not in ("COMPLETED", "")]
    if failed:
        first, status = failed[0], watch.elements[failed[0]]
        lines = _tail(job.log(f"{array.job_id}_{first}"))
        context.log.error(f"{len(failed)} of {array.shards} shards failed: {', '.join(map(str, failed))}")
        fail(spec, profile, record, record.attempts[first - array.shards], status, lines, cut_off(status))
    if forgotten := [str(index) for index, status in watch.elements.items() if not status.state]:
        context.log.warning(
            f"SLURM knows nothing of shards {', '.join(forgotten)} any more; what they lack, the next job plays"
        )


def _submit(login: Login, spec: StageSpec, profile: Profile, record: JobRecord, job: Job) -> None:
    asked = profile.resources(job.asset)
    if asked.shards > (most := max_array_size(login)):
        raise R2VError(
            f"{FOLDER}/{profile.name}.yaml: assets.{job.asset}.shards: {asked.shards}, but a job array of this cluster "
            f"has at most {most} elements (MaxArraySize); lower it"
        )
    gather_usage(job.run_dir)
    forget_progress(job.run_dir)
    attempt = next_attempt(record, job)
    attempt.shards = asked.shards
    variables = {"R2V_PROJECT": spec.project, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    submit_attempt(login, job, job_script(profile, job, variables, sharded=True), profile, record)
    attempt.log = str(job.log(f"{attempt.job_id}_*").relative_to(job.run_dir))
    record.write(job.run_dir)


@dataclass(kw_only=True)
class ArrayMonitor(JobMonitor):
    """Follows the elements of a job array to their ends, and begins again alone those that were cut off."""

    job: Job
    shards: int
    profile: Profile
    elements: dict[int, JobStatus] = field(default_factory=dict)
    """What SLURM said last of each."""
    repeats: Counter[tuple[int, bool]] = field(default_factory=Counter)
    """(element, whether it was cut off or else failed) → how often it was begun again from here."""
    refused: set[int] = field(default_factory=set)
    """Elements that SLURM did not take back."""

    def _poll(self) -> JobStatus:
        trouble, pause, told, since = Outage(self), FIRST_POLL_S, 0.0, dict[int, float]()
        while True:
            if self._cancelled():
                raise dg.DagsterExecutionInterruptedError("the run was cancelled")
            try:
                found = query_array(self.login, self.job_id, self.shards, self.elements)
                trouble.over()
                for index, status in found.items():
                    self._note(index, status)
                odd = [index for index, status in found.items() if status.state in LOST_NODE or not status.state]
                since = {index: since.get(index, time.monotonic()) for index in odd}
                self._begin_again(since)
            except R2VError as error:  # no connection, or no controller: says nothing about the job
                trouble.noted(error)
                time.sleep(min(self.poll_s, 10.0))
                continue
            over = all(self._is_over(index, since) for index in self.elements)
            if over or time.monotonic() - told > TELL_S:
                told = time.monotonic()
                self._tell_progress()
            if over:
                return combined(self.elements)
            pause = min(pause * 1.5, self.poll_s)
            time.sleep(pause)

    def _is_over(self, index: int, since: Mapping[int, float]) -> bool:
        status = self.elements[index]
        if not status.state:
            return time.monotonic() - since[index] > UNKNOWN_S
        return status.ended and (status.state not in LOST_NODE or time.monotonic() - since[index] > REQUEUE_S)

    def _note(self, index: int, status: JobStatus) -> None:
        before = self.elements.get(index, JobStatus(""))
        self.elements[index] = status
        if status.restarts > before.restarts and before.state:
            self.context.log.warning(f"SLURM has put shard {index} back into the queue (restart {status.restarts})")
        if status.state != before.state and status.state:
            where = f" on {status.node}" if status.node else ""
            why = f" ({status.reason})" if status.reason else ""
            self.context.log.info(f"shard {index} ({self.job_id}_{index}) is {status.state.lower()}{where}{why}")

    def _begin_again(self, since: Mapping[int, float]) -> None:
        for index, status in list(self.elements.items()):
            if index in self.refused or status.state in ("COMPLETED", "") or not self._is_over(index, since):
                continue
            cut = cut_off(status)
            why = cut or self._failure(index, status)
            kind, most = (index, cut is not None), self.profile.resubmit if cut else FAILURES
            if why is None or self.repeats[kind] >= most:
                continue
            try:
                requeue(self.login, f"{self.job_id}_{index}")
            except UnreachableError:
                raise
            except R2VError as error:
                self.refused.add(index)
                self.context.log.warning(f"shard {index} {why}, and SLURM does not take it back: {error}")
                continue
            self.repeats[kind] += 1
            self.context.log.warning(f"shard {index} {why}; it alone begins again, where it stopped")
            self.elements[index] = JobStatus("REQUEUED", restarts=status.restarts + 1)

    def _failure(self, index: int, status: JobStatus) -> str | None:
        """That an element failed in a way that another attempt may not; None where it would."""
        lines = _tail(self.job.log(f"{self.job_id}_{index}"))
        if status.state != "FAILED" or status.exit_code == TO_MEND or ran_out_of_memory(status, lines):
            return None
        return f"failed (exit status {status.exit_code})"

    def _tell_progress(self) -> None:
        states = Counter(status.state.lower() or "unknown" for status in self.elements.values())
        counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        for what, (done, total) in progress(self.job.run_dir).items():
            share = f" ({done / total:.0%})" if total else ""
            self.context.log.info(f"{what} {done}/{total}{share} in the shards that have begun; of all: {counts}")

    def _is_gone(self) -> bool:
        found = query_array(self.login, self.job_id, self.shards, {})
        return all(status.ended or not status.state for status in found.values())


def attempt_status(login: Login, attempt: Attempt, job_id: str) -> JobStatus:
    """What SLURM says of a submission, be it a job or a job array.

    Raises:
        UnreachableError: if the login node can't be reached.
        R2VError: if SLURM can't be asked there.
    """
    if attempt.shards is None:
        return query_job(login, job_id)
    return combined(query_array(login, job_id, attempt.shards, {}))


def combined(elements: Mapping[int, JobStatus]) -> JobStatus:
    """What to say of an array: that of an element that is at work, else of one that failed, else of any."""
    states = list(elements.values())
    going = [status for status in states if status.state and not status.ended]
    failed = [status for status in states if status.state != "COMPLETED"]
    return (going or failed or states)[0]


def _account(
    login: Login, record: JobRecord, job: Job, elements: Mapping[int, JobStatus], context: dg.AssetExecutionContext
) -> None:
    """Put the elements, with what accounting says of each, in the place of the array."""
    array, end, lacking = record.attempts.pop(), time.monotonic() + ACCOUNTING_S, 0
    for index, status in sorted(elements.items()):
        job_id = f"{array.job_id}_{index}"
        log = str(job.log(job_id).relative_to(job.run_dir))
        facts = accounted(login, job_id, status, end)
        lacking += "ended_at" not in facts
        known = {"attempt": array.attempt, "job_id": job_id, "name": array.name, "log": log}
        record.attempts.append(Attempt.model_validate({**known, **facts}))
    if lacking:
        context.log.warning(f"sacct does not know the end of {lacking} shards yet; their numbers will be missing")
    record.write(job.run_dir)


def _tail(log: Path) -> list[str]:
    """The last lines of an element's log."""
    try:
        return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip().splitlines()[-20:]
    except OSError:
        return []
