"""The run manifest: one JSON file beside the data, from which the whole registry can be rebuilt."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core.errors import R2VError
from r2v_core.migrations import current_version, read_record
from r2v_core.runs.jsonl import whole_file

MANIFEST_NAME = "run_manifest.json"
MERGE = "merge"
"""Stage of a run that holds the episodes of several others."""
IMPORT = "import"
"""Stage of a run that was made of a file of episodes."""

Status = Literal["running", "done", "failed", "partial"]


class RunInput(BaseModel):
    """One upstream run that this run read."""

    model_config = ConfigDict(extra="forbid")
    role: str = Field(description="what it was used as, e.g. 'tasks', 'policy', 'perturbed'")
    run_id: str
    digest: str = Field(description="the upstream's digest at the time it was read")
    path: str = Field(description="the upstream's run directory, relative to the project root where possible")


class RunManifest(BaseModel):
    """Everything worth knowing about one run of one stage."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = current_version("RunManifest")
    run_id: str
    stage: str
    benchmark: str
    provider: str = Field(description="teacher provider, e.g. 'env'")
    model: str = Field(description="teacher model, e.g. 'expert'")
    seed: int
    partition: str = Field(description="'<benchmark>:<teacher>|<seed>'")
    variant: str = Field(default="", description="variant of the experiment; empty: the experiment itself")
    status: Status
    created_at: str = Field(description="ISO 8601, UTC")
    finished_at: str | None = None
    output_dir: str = Field(description="the run directory, relative to the project root where possible")
    config_path: str | None = Field(None, description="the config file, relative to the project root where possible")
    config: dict[str, Any] = Field(default_factory=dict, description="merged config snapshot, secrets excluded")
    config_digest: str = ""
    overrides: list[str] = Field(default_factory=list)
    fingerprint: str = Field(default="", description="digest of code version, config, seed and input digests")
    code_version: str = ""
    git_commit: str | None = None
    inputs: list[RunInput] = Field(default_factory=list)
    digest: str = Field(default="", description="content digest of what the run produced = Dagster data version")
    artifacts: dict[str, str] = Field(default_factory=dict, description="name → path relative to output_dir")
    artifact_digests: dict[str, str] = Field(default_factory=dict, description="name → digest of its bytes at finish")
    n_episodes: int = 0
    n_success: int = 0
    n_steps: int = 0
    counts: dict[str, float] = Field(default_factory=dict, description="stage-specific numbers worth a column")
    cost_usd: float = 0.0
    wall_time_s: float = 0.0
    host: str = ""
    slurm_job_id: str | None = None
    dagster_run_id: str | None = None
    tags: list[str] = Field(default_factory=list)
    notes: str = ""
    error: str | None = None

    @property
    def success_rate(self) -> float:
        """Share of successful episodes, 0 where there are none."""
        return self.n_success / self.n_episodes if self.n_episodes else 0.0


def utc_now() -> str:
    """The present moment as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def write_atomic(path: Path, text: str) -> None:
    """Write a file whole or not at all (:func:`r2v_core.runs.jsonl.whole_file`)."""
    with whole_file(path) as handle:
        handle.write(text)


def sweep_temporaries(run_dir: Path) -> None:
    """Remove what killed writers left half-written in a run directory; for the holder of the run's lock."""
    for temporary in run_dir.rglob(".*.tmp"):
        with suppress(OSError):
            temporary.unlink()


def write_manifest(manifest: RunManifest, run_dir: Path) -> Path:
    """Write ``run_manifest.json`` into ``run_dir`` atomically and return its path."""
    path = run_dir / MANIFEST_NAME
    write_atomic(path, json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
    return path


def begun_by_older(run_dir: Path) -> str | None:
    """Why an unfinished run can't be taken up: it was begun with records of an older version. None where it can."""
    found = json.loads((run_dir / MANIFEST_NAME).read_text(encoding="utf-8")).get("schema_version", 1)
    known = current_version("RunManifest")
    if found == known:
        return None
    return (
        f"{run_dir / MANIFEST_NAME}: an unfinished run of version {found}, this program writes version {known} and "
        "does not go on with it; its episodes can still be merged (r2v registry merge)"
    )


def read_manifest(run_dir: Path) -> RunManifest:
    """Read a run's manifest.

    Raises:
        R2VError: if it is missing, is not JSON, fits no version, or is of a newer one; the message names the file.
    """
    path = run_dir / MANIFEST_NAME
    if path.exists() and not path.is_file():
        raise R2VError(f"{path}: not a file; move it away, as the run's manifest belongs there")
    try:
        return read_record(RunManifest, path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise R2VError(f"{path}: no run manifest there; the directory is not a run, or its stage never began") from None
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0:3]
        raise R2VError(
            f"{path}: not a valid run manifest ({' '.join(first)}); re-run the stage that wrote it"
        ) from error
