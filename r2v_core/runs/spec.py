"""What a stage is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core.config.schema import Config
from r2v_core.errors import R2VError
from r2v_core.migrations import current_version, read_record
from r2v_core.partition import Partition
from r2v_core.runs import processes
from r2v_core.runs.artifacts import verify
from r2v_core.runs.manifest import RunInput, RunManifest, Status, read_manifest
from r2v_core.runs.reporting import Reporter


class StageSpec(BaseModel):
    """A planned run, complete: what a SLURM job or a subprocess is handed as one JSON file."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = current_version("StageSpec")
    stage: str
    partition: str
    provider: str = Field(description="of the partition's teacher, as in the manifest")
    model: str = Field(description="the teacher's model, as in the manifest")
    run_id: str
    run_dir: str = Field(description="absolute")
    project: str = Field(description="absolute project root that relative paths start from")
    config_path: str | None
    config: Config
    overrides: list[str] = Field(default_factory=list)
    inputs: list[RunInput] = Field(default_factory=list)
    fingerprint: str
    resumed: bool = False
    tags: list[str] = Field(default_factory=list)
    notes: str = ""
    variant: str = Field(default="", description="of the experiment, as in the manifest")


def read_spec(path: Path) -> StageSpec:
    """Read a planned run.

    Raises:
        R2VError: if the file is missing, is no planned run, or was written by a newer program.
    """
    try:
        return read_record(StageSpec, path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise R2VError(f"{path}: not a readable planned run ({' '.join(str(error).split())})") from error


@dataclass(frozen=True)
class UpstreamRun:
    """A finished run that this stage reads."""

    directory: Path
    manifest: RunManifest

    def artifact(self, name: str) -> Path:
        """Absolute path of a named artifact.

        Raises:
            R2VError: if the run has no such artifact, or its file is gone.
        """
        relative = self.manifest.artifacts.get(name)
        path = self.directory / relative if relative else None
        if path is None or not path.exists():
            raise R2VError(
                f"run {self.manifest.run_id} ({self.manifest.stage}) has no artifact '{name}' at {path}; "
                "its files were deleted or moved: materialise it again"
            )
        return path


@dataclass
class StageContext:
    """What a stage function may use; nothing else of the world is its business."""

    spec: StageSpec
    config: Config
    partition: Partition
    run_dir: Path
    cache: Path
    project: Path
    inputs: dict[str, UpstreamRun]
    report: Reporter

    @property
    def seed(self) -> int:
        """The partition's seed, from which all randomness flows."""
        return self.partition.seed

    def identity(self) -> dict[str, Any]:
        """Metadata that every episode of this run carries."""
        spec = self.spec
        return {"run_id": spec.run_id, "teacher_provider": spec.provider, "teacher_model": spec.model}


@dataclass
class StageResult:
    """What a stage hands to the runner for the manifest.

    Artifacts named ``preview`` (Markdown) and those ending in ``.png`` are shown on the asset's page.
    """

    digest: str
    artifacts: dict[str, str] = field(default_factory=dict)
    status: Status = "done"
    n_episodes: int = 0
    n_success: int = 0
    n_steps: int = 0
    counts: dict[str, float] = field(default_factory=dict)
    cost_usd: float = 0.0
    inputs: list[RunInput] = field(default_factory=list)
    """Runs that the stage read besides the planned ones, for the lineage."""
    scratch: tuple[str, ...] = ()
    """Files and folders of the run directory that only serve to take an unfinished run up again: they go once the
    manifest says that it is finished, so that a kill before that loses nothing."""


StageFunction = Callable[[StageContext], StageResult]


def load_upstream(spec: StageSpec) -> dict[str, UpstreamRun]:
    """Open every input named in ``spec`` and check that it is finished and unchanged since planning.

    Every file that it names is read and compared with the digest that its run gave it, by the main process and shards.

    Raises:
        R2VError: naming the input that is missing, unfinished or altered.
    """
    runs = {}
    for item in spec.inputs:
        directory = Path(spec.project) / item.path
        manifest = read_manifest(directory)
        if manifest.status not in ("done", "partial") or manifest.digest != item.digest:
            raise R2VError(
                f"input '{item.role}' ({item.run_id}) is {manifest.status} with digest {manifest.digest or 'none'}, "
                f"but {item.digest} was planned for; materialise it again"
            )
        if processes.rank() == 0:
            verify(directory, manifest)
        runs[item.role] = UpstreamRun(directory, manifest)
    return runs
