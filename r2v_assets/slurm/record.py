"""``slurm_job.json``: which jobs work, or worked, on a run. Registry and later orchestrators read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from r2v_core.runs.manifest import write_atomic

RECORD_NAME = "slurm_job.json"


class Attempt(BaseModel):
    """One submission. Facts are those of :func:`r2v_assets.slurm.jobs.read_accounting`."""

    model_config = ConfigDict(extra="allow")

    attempt: int
    job_id: str | None = None
    name: str = ""
    log: str | None = None
    """Relative to the run directory."""
    state: str | None = None
    shards: int | None = None
    """Elements, of a job array that may be at work; once it is over, each has a submission of its own here."""


class JobRecord(BaseModel):
    """All submissions of a run, oldest first."""

    fingerprint: str
    profile: str
    finished: bool = False
    """Nobody has to look after the last job any more."""
    attempts: list[Attempt] = []

    @property
    def last(self) -> Attempt:
        """The latest submission."""
        return self.attempts[-1]

    def write(self, run_dir: Path) -> None:
        """Write the record, whole or not at all."""
        write_atomic(run_dir / RECORD_NAME, self.model_dump_json(indent=2, exclude_none=True) + "\n")


def read_record(run_dir: Path) -> JobRecord | None:
    """The record of a run, None if no job ever worked on it."""
    try:
        return JobRecord.model_validate_json((run_dir / RECORD_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def last_job(run_dir: Path) -> dict[str, Any]:
    """What is known of the run's latest job, empty if there was none."""
    record = read_record(run_dir)
    return record.last.model_dump(exclude_none=True) if record and record.attempts else {}
