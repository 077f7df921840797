"""The face of every compute: a planned run in, its final manifest out."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from r2v_assets.failure import StageFailure
from r2v_core.manifest import MANIFEST_NAME, RunManifest, read_manifest, utc_now, write_manifest
from r2v_core.stages.plan import is_alive
from r2v_core.stages.spec import StageSpec

SPEC_NAME = "spec.json"


class StageCompute(dg.ConfigurableResource, ABC):
    """Runs a stage somewhere and waits for it."""

    @abstractmethod
    def run(self, context: dg.AssetExecutionContext, spec: StageSpec) -> RunManifest:
        """Run a planned stage to its end and return its manifest, status ``done``.

        Raises:
            StageFailure: described by the stage's own error; the run directory says the same.
        """

    def adopt(self, context: dg.AssetExecutionContext, spec: StageSpec) -> StageSpec:
        """The planned run, or the same work if it is under way already and an earlier orchestrator was killed."""
        return spec


def write_spec(spec: StageSpec) -> Path:
    """Put the planned run into its directory as the file that the stage is started with."""
    path = Path(spec.run_dir) / SPEC_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    return path


def outcome(spec: StageSpec, exit_code: int, last_lines: Sequence[str]) -> RunManifest:
    """The manifest of a run whose process has ended, made truthful first if the process could not do so itself.

    Raises:
        StageFailure: unless the run is done.
    """
    run_dir = Path(spec.run_dir)
    manifest = read_manifest(run_dir) if (run_dir / MANIFEST_NAME).exists() else None
    if exit_code == 0 and manifest is not None and manifest.status == "done":
        return manifest
    if exit_code < 0:
        error = f"the process of stage '{spec.stage}' was ended by {signal.Signals(-exit_code).name}"
        if exit_code == -signal.SIGKILL:
            error += ", as the kernel does when memory runs out"
        error += "; materialise again to take the run up where it stopped"
    elif manifest is not None and manifest.error:
        error = manifest.error
    else:
        said = [line for line in last_lines if line.strip()]
        error = said[-1].removeprefix("error: ") if said else f"stage '{spec.stage}' ended with status {exit_code}"
    mark_stopped(run_dir, error)
    raise StageFailure(
        error,
        metadata={
            "run_id": spec.run_id,
            "run_dir": dg.MetadataValue.path(spec.run_dir),
            "exit_status": exit_code,
            "last_lines": dg.MetadataValue.md("```\n" + "\n".join(last_lines) + "\n```"),
        },
        allow_retries=exit_code < 0,
    )


def mark_stopped(run_dir: Path, error: str) -> None:
    """Make the manifest of a run whose process could not do so itself truthful: ``partial``, with the reason."""
    manifest = read_manifest(run_dir) if (run_dir / MANIFEST_NAME).exists() else None
    if manifest is not None and manifest.status == "running" and not is_alive(run_dir):
        write_manifest(
            manifest.model_copy(update={"status": "partial", "error": error, "finished_at": utc_now()}), run_dir
        )
