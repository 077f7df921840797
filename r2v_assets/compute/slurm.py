"""Stages as SLURM jobs.

Built on ``dagster-slurm``: its SSH settings, its accounting reader. Not used is its ``SlurmPipesClient.run``, because
what it does around a job is not what jobs of days need, and none of it can be set from outside:

- after five status questions without an answer (a connection lost for seconds) it takes the job for finished, and any
  error of its own cancels the job; here an outage says nothing about a job, and only cancelling a run cancels one;
- it gives up after ``poll_timeout`` (an hour unless told), pending time included; here nothing does;
- it remembers the job in tags of the Dagster run, one job a run, and finds it again only from a retry or a failed run;
  here the job id lies in the run directory, written by the login node itself, and any later materialisation finds it;
- a time limit, a lost node or preemption fails the asset; here the run goes on in another job;
- the final state comes from ``sacct`` alone, so a job is waited for for ever where accounting is slow or off;
- job names, GPU types, constraints and mail can't be set; the environment's values, secrets among them, are written
  into the job script; its working directory is deleted after success, with the log.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
from pydantic import Field

from r2v_assets.compute.base import StageCompute, write_spec
from r2v_assets.compute.local import LocalCompute
from r2v_assets.outcome import mark_stopped
from r2v_assets.project import root
from r2v_assets.slurm.array import attempt_status, play_shards
from r2v_assets.slurm.ending import account, follow_up
from r2v_assets.slurm.jobs import JobStatus, find_submitted
from r2v_assets.slurm.login import Login
from r2v_assets.slurm.monitor import JobMonitor
from r2v_assets.slurm.profile import Profile, load_profile
from r2v_assets.slurm.record import JobRecord, read_record
from r2v_assets.slurm.script import Job, job_script
from r2v_assets.slurm.stream import LogCopy, MessageReader, following
from r2v_assets.slurm.submission import next_attempt, submit_attempt
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest
from r2v_core.runs.spec import StageSpec, read_spec
from r2v_core.stages.table import get_stage, is_on


class SlurmCompute(StageCompute):
    """Each stage as a job of the cluster that a profile describes."""

    profile: str | None = Field(None, description="configs/slurm/<profile>.yaml (default: $R2V_SLURM_PROFILE)")
    echo: bool = Field(False, description="print progress lines on stderr too")

    def adopt(self, context: dg.AssetExecutionContext, spec: StageSpec) -> StageSpec:
        """The same work, if a job of an earlier orchestrator is on it or has finished it unnoticed."""
        profile = load_profile(self.profile, root())
        if _local(profile, spec):
            return spec
        login = Login(profile.login)
        planned = Path(spec.run_dir)
        for path in sorted(planned.parent.glob("*/slurm_job.json")):
            record = read_record(path.parent)
            if record is None or record.finished or record.fingerprint != spec.fingerprint:
                continue
            job = _job(spec.model_copy(update={"run_id": path.parent.name, "run_dir": str(path.parent)}))
            job_id = record.last.job_id or find_submitted(job, record.last.attempt)
            shards = record.last.shards is not None
            status = attempt_status(login, record.last, job_id) if job_id else JobStatus("")
            to_gather = shards and status.state == "COMPLETED"
            if job_id and ((status.state and not status.ended) or to_gather or _done(path.parent)):
                context.log.info(f"SLURM job {job_id} makes this already ({path.parent.name}); not submitting another")
                record.last.job_id = job_id
                record.write(path.parent)
                if path.parent != planned and not any(planned.iterdir()):
                    planned.rmdir()
                return read_spec(path.parent / "spec.json")
            if job_id and not shards:
                account(login, record, path.parent, status, context.log)
            record.finished = True
            record.write(path.parent)
        return spec

    def run(
        self, context: dg.AssetExecutionContext, spec: StageSpec, resources: Mapping[str, Any] = MappingProxyType({})
    ) -> RunManifest:
        """Run the stage as a job, or as several where a time limit or a lost node ends one; its shards before it."""
        profile = load_profile(self.profile, root()).asking(get_stage(spec.stage).asset, resources)
        if _local(profile, spec):
            return LocalCompute(echo=self.echo, grace_s=30.0).run(context, spec)
        run_dir = Path(spec.run_dir)
        record = read_record(run_dir) or JobRecord(fingerprint=spec.fingerprint, profile=profile.name)
        found = bool(record.attempts) and not record.finished and record.last.job_id is not None
        asked = profile.resources(get_stage(spec.stage).asset)
        if record.last.shards is not None if found else asked.shards > 1:
            if not found:
                write_spec(spec)
            play_shards(context, spec, profile, record, _job(spec), submitted=found)
            found, spec = False, spec.model_copy(update={"resumed": True})
            if _done(run_dir):  # somebody has gathered by hand
                record.finished = True
                record.write(run_dir)
                return read_manifest(run_dir)
        for left in range(profile.resubmit, -1, -1):
            status, lines = self._one_job(context, spec, profile, record, submitted=found)
            again = follow_up(context, spec, profile, record, status, lines, more=left > 0)
            if again is None:
                return read_manifest(run_dir)
            context.log.warning(again)
            found, spec = False, spec.model_copy(update={"resumed": True})
        raise AssertionError("follow_up ends the last attempt")

    def _one_job(
        self,
        context: dg.AssetExecutionContext,
        spec: StageSpec,
        profile: Profile,
        record: JobRecord,
        *,
        submitted: bool,
    ) -> tuple[JobStatus, list[str]]:
        """Submit a job, or take up the one that was, and wait for its end; last lines of its log too."""
        login, job, run_dir = Login(profile.login), _job(spec), Path(spec.run_dir)
        job.folder.mkdir(parents=True, exist_ok=True)
        attempt = record.last if submitted else next_attempt(record, job)
        reader = MessageReader(job.folder / f"messages-{attempt.attempt}.jsonl")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of a part of Pipes that Dagster's own code uses
            with dg.open_pipes_session(
                context=context, context_injector=dg.PipesEnvContextInjector(), message_reader=reader
            ) as session:
                if not submitted:
                    variables = {
                        **session.get_bootstrap_env_vars(),
                        "R2V_PROJECT": spec.project,
                        "R2V_DAGSTER_RUN_ID": context.run.run_id,
                        "PYTHONUNBUFFERED": "1",
                        "TOKENIZERS_PARALLELISM": "false",
                    }
                    write_spec(spec)
                    submit_attempt(login, job, job_script(profile, job, variables), profile, record)
                assert attempt.job_id is not None
                if not submitted:
                    context.log.info(
                        f"submitted SLURM job {attempt.job_id}, {job.name}; log: {job.log(attempt.job_id)}"
                    )
                attempt.log = str(job.log(attempt.job_id).relative_to(run_dir))
                record.write(run_dir)
                hide = (b"error: ",) if self.echo else (b"error: ", f"[{spec.stage}] ".encode())
                copy = LogCopy(hide)
                watch = JobMonitor(login, attempt.job_id, profile.poll_s, context, reader.closed.is_set)
                try:
                    with following(job.log(attempt.job_id), copy):
                        status = watch.until_end()
                finally:
                    if watch.cancelled:
                        mark_stopped(run_dir, f"SLURM job {attempt.job_id} was cancelled")
        account(login, record, run_dir, status, context.log)
        return status, list(copy.tail)


def _local(profile: Profile, spec: StageSpec) -> bool:
    """Whether a stage runs beside Dagster, as one does that is switched off: it has nothing to wait for a job for."""
    stage = get_stage(spec.stage)
    return profile.resources(stage.asset).where == "local" or not is_on(stage, spec.config)


def _job(spec: StageSpec) -> Job:
    return Job(spec.stage, spec.partition, spec.run_id, Path(spec.run_dir), Path(spec.project))


def _done(run_dir: Path) -> bool:
    return (run_dir / MANIFEST_NAME).exists() and read_manifest(run_dir).status == "done"
