"""Waiting for a job, however long it takes and whatever happens to the connection meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from r2v_assets.slurm.jobs import LOST_NODE, JobStatus, cancel, query_job
from r2v_assets.slurm.login import Login, UnreachableError
from r2v_core.errors import R2VError

FIRST_POLL_S = 0.5
UNKNOWN_S = 120.0
"""After this long neither controller nor accounting will remember the job any more."""
REQUEUE_S = 10.0
"""SLURM's time to put a job that lost its node back into the queue."""
CANCEL_S = 90.0


@dataclass
class JobMonitor:
    """Follows one job to its end. There is no limit on the time a job may be pending or running."""

    login: Login
    job_id: str
    poll_s: float
    context: dg.AssetExecutionContext
    closing: Callable[[], bool]
    """Whether the stage has said its last word: then SLURM is asked more often."""
    cancelled: bool = False
    """Whether the job was cancelled from here and is gone."""

    def until_end(self) -> JobStatus:
        """Wait for the end; returns what SLURM says of the job then (no state: SLURM has forgotten it).

        A run that is cancelled in Dagster cancels the job; any other interruption (Ctrl-C, a stopped or killed
        orchestrator) leaves the job alone, to be found again by the next materialisation.
        """
        try:
            return self._poll()
        except BaseException:
            if self._cancelled():
                self._cancel()
            else:
                self.context.log.warning(
                    f"no longer watching SLURM job {self.job_id}, which goes on; materialise again to find it, or end "
                    f"it with: scancel {self.job_id}"
                )
            raise

    def _poll(self) -> JobStatus:
        pause, before, unknown_since, lost_since = FIRST_POLL_S, JobStatus(""), None, None
        trouble = Outage(self)
        while True:
            if self._cancelled():
                raise dg.DagsterExecutionInterruptedError("the run was cancelled")
            try:
                status = query_job(self.login, self.job_id)
            except R2VError as error:  # no connection, or no controller: says nothing about the job
                trouble.noted(error)
                time.sleep(min(self.poll_s, 10.0))
                continue
            trouble.over()
            now = time.monotonic()
            unknown_since = None if status.state else unknown_since or now
            lost_since = (lost_since or now) if status.state in LOST_NODE else None
            if status.ended and (lost_since is None or now - lost_since > REQUEUE_S):
                return status
            if unknown_since is not None and now - unknown_since > UNKNOWN_S:
                return status
            changed = (status.state, status.reason, status.node) != (before.state, before.reason, before.node)
            if changed and status.state:
                self._tell(status, before)
                before = status
            quick = changed or self.closing() or status.state in ("", "COMPLETING") or lost_since
            pause = FIRST_POLL_S if quick else min(pause * 1.5, self.poll_s)
            time.sleep(min(pause, self.poll_s))

    def _tell(self, status: JobStatus, before: JobStatus) -> None:
        if status.restarts > before.restarts and before.state:
            self.context.log.warning(f"SLURM has put job {self.job_id} back into the queue (restart {status.restarts})")
        where = f" on {status.node}" if status.node else ""
        why = f" ({status.reason})" if status.reason else ""
        self.context.log.info(f"SLURM job {self.job_id} is {status.state.lower()}{where}{why}")

    def _cancelled(self) -> bool:
        run = self.context.instance.get_run_by_id(self.context.run.run_id)
        return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)

    def _cancel(self) -> None:
        """Cancel the job and wait until its stage has closed its files."""
        self.context.log.info(f"the run was cancelled: cancelling SLURM job {self.job_id}")
        end, asked = time.monotonic() + CANCEL_S, 0.0
        while time.monotonic() < end:
            try:
                if time.monotonic() - asked > 30:  # once more, should the first have been lost
                    cancel(self.login, self.job_id)
                    asked = time.monotonic()
                if self._is_gone():
                    self.cancelled = True
                    return
            except UnreachableError:
                pass
            time.sleep(1.0)
        self.context.log.error(f"SLURM job {self.job_id} is still there; end it by hand: scancel {self.job_id}")

    def _is_gone(self) -> bool:
        return query_job(self.login, self.job_id).state in ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "")


class Outage:
    """Says once that SLURM can't be asked, now and then that it still can't, and once that it can again."""

    def __init__(self, watch: JobMonitor) -> None:
        self.watch = watch
        self.since: float | None = None
        self.next_note = 0.0

    def noted(self, error: R2VError) -> None:
        """An attempt failed."""
        now = time.monotonic()
        self.since = self.since or now
        if now >= self.next_note:
            self.watch.context.log.warning(f"{error}; job {self.watch.job_id} goes on, asking again")
            self.next_note = now + max(60.0, now - self.since)

    def over(self) -> None:
        """An attempt succeeded."""
        if self.since is not None:
            lasted = time.monotonic() - self.since
            self.watch.context.log.info(f"SLURM can be asked again after {lasted:.0f} s")
        self.since, self.next_note = None, 0.0
