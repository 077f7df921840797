"""From a run directory to the registry's rows. Knows nothing of the registry file.

Reads files only, but for the manifest of a run whose process was killed, which is made to say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from r2v_core.digest import digest_file
from r2v_core.errors import R2VError
from r2v_core.registry.artifacts import artifact_rows
from r2v_core.registry.episode_rows import episodes_table
from r2v_core.registry.log_rows import EVALUATIONS, METRICS, SLURM_JOB, evaluation_rows, metric_rows, slurm_rows
from r2v_core.registry.rows import ARTIFACTS, EVALUATION_ROWS, LINEAGE, METRICS_ROWS, RUNS, SLURM_JOBS
from r2v_core.registry.values import json_text, relative, timestamp, to_table
from r2v_core.runs.abandoned import settle
from r2v_core.runs.artifacts import altered
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest


@dataclass
class RunRows:
    """Everything the registry stores about one run, by table."""

    manifest: RunManifest
    """As on disk, but with ``output_dir`` where the run really lies."""
    manifest_digest: str
    tables: dict[str, pa.Table]
    problems: list[str] = field(default_factory=list)
    """Lines that were passed over, as ``file:line: what is wrong``."""


def read_run(run_dir: Path, project: Path) -> RunRows:
    """All rows of one run, read from its manifest and the data files beside it.

    Raises:
        R2VError: for a missing or broken manifest, naming it. Broken data lines are passed over and reported.
    """
    manifest_path = run_dir / MANIFEST_NAME
    settle(run_dir, read_manifest(run_dir))
    digest = digest_file(manifest_path)
    manifest = read_manifest(run_dir).model_copy(update={"output_dir": relative(run_dir, project)})
    problems = altered(run_dir, manifest)
    tables = {
        "runs": to_table([_run_row(manifest, digest, manifest_path)], RUNS, manifest_path),
        "lineage": to_table(_lineage_rows(manifest), LINEAGE, manifest_path),
        "episodes": episodes_table(manifest.run_id, run_dir, project, problems),
        "metrics": to_table(metric_rows(manifest.run_id, run_dir / METRICS, problems), METRICS_ROWS, run_dir / METRICS),
        "evaluations": to_table(
            evaluation_rows(manifest.run_id, run_dir / EVALUATIONS, problems), EVALUATION_ROWS, run_dir / EVALUATIONS
        ),
        "slurm_jobs": to_table(slurm_rows(manifest, run_dir / SLURM_JOB, problems), SLURM_JOBS, run_dir / SLURM_JOB),
        "artifacts": to_table(artifact_rows(manifest, run_dir, project), ARTIFACTS, manifest_path),
    }
    return RunRows(manifest, digest, tables, problems)


def _run_row(manifest: RunManifest, digest: str, source: Path) -> dict[str, Any]:
    row = manifest.model_dump(exclude={"inputs", "artifacts", "artifact_digests"})
    created = timestamp(manifest.created_at, source)
    if created is None:
        raise R2VError(f"{source}: created_at is empty; write the time the run began")
    return row | {
        "created_at": created,
        "finished_at": timestamp(manifest.finished_at, source),
        "config": json_text(manifest.config),
        "counts": json_text(manifest.counts),
        "success_rate": manifest.success_rate,
        "manifest_digest": digest,
        "manifest": json_text(manifest.model_dump(mode="json", exclude={"config"})),
    }


def _lineage_rows(manifest: RunManifest) -> Iterator[dict[str, Any]]:
    for item in manifest.inputs:
        yield {
            "run_id": manifest.run_id,
            "role": item.role,
            "upstream_run_id": item.run_id,
            "upstream_digest": item.digest,
            "upstream_path": item.path,
        }
