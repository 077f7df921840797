"""How a run ended: from the exit of its process to a truthful manifest, wherever the stage ran."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from r2v_assets.failure import StageFailure
from r2v_core.errors import TransientError
from r2v_core.runs.abandoned import end_partial
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest
from r2v_core.runs.spec import StageSpec


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
        error += "; materialise again to resume the run where it stopped"
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
        allow_retries=exit_code < 0 or exit_code == TransientError.STATUS,
    )


def mark_stopped(run_dir: Path, error: str) -> None:
    """Make the manifest of a run whose process could not do so itself truthful: ``partial``, with the reason."""
    if (run_dir / MANIFEST_NAME).exists():
        end_partial(run_dir, error)
