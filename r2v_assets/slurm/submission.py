"""Handing a run's script to SLURM, remembered in the run directory whatever happens to the answer."""

from __future__ import annotations

from r2v_assets.slurm.jobs import find_submitted, submit
from r2v_assets.slurm.login import Login, named_secrets
from r2v_assets.slurm.profile import Profile
from r2v_assets.slurm.record import Attempt, JobRecord
from r2v_assets.slurm.script import Job


def next_attempt(record: JobRecord, job: Job) -> Attempt:
    """A further submission of a run, noted in its record."""
    number = record.last.attempt + 1 if record.attempts else 1
    record.attempts.append(Attempt(attempt=number, name=job.name))
    record.finished = False
    return record.last


def submit_attempt(login: Login, job: Job, script: str, profile: Profile, record: JobRecord) -> None:
    """Submit the record's last attempt; its job id stands there then.

    Raises:
        R2VError: if it can't be submitted; the attempt is taken back unless SLURM has it all the same.
    """
    attempt = record.last
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / f"job-{attempt.attempt}.sh").write_text(script, encoding="utf-8")
    record.write(job.run_dir)  # so that the job is found should we end before sbatch answers
    try:
        attempt.job_id = submit(
            login, job, attempt.attempt, profile.environment_folder, named_secrets(profile.environment.pass_)
        )
    except BaseException:
        if find_submitted(job, attempt.attempt) is None:
            record.attempts.pop()
            record.finished = True
            record.write(job.run_dir)
        raise
