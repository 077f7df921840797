"""Rows of the table ``artifacts``: what a run left on disk, with the digests that its manifest gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r2v_core.registry.episode_rows import EPISODES_JSONL, EPISODES_PARQUET
from r2v_core.registry.log_rows import EVALUATIONS, METRICS, SLURM_JOB
from r2v_core.registry.values import relative
from r2v_core.runs.artifacts import digest, measure
from r2v_core.runs.manifest import RunManifest

DATA_FILES = (EPISODES_JSONL, EPISODES_PARQUET, METRICS, EVALUATIONS, SLURM_JOB)
FINAL = ("done", "failed")
"""A run with one of these statuses is not written any more."""


def artifact_rows(manifest: RunManifest, run_dir: Path, project: Path) -> Iterator[dict[str, Any]]:
    """One row a file or folder that the manifest names, and one a data file that it does not."""
    named = dict(manifest.artifacts)
    named |= {name: name for name in DATA_FILES if name not in named.values() and (run_dir / name).exists()}
    for name, below in named.items():
        path = run_dir / below
        kind, size = measure(path)
        yield {
            "run_id": manifest.run_id,
            "name": name,
            "path": relative(path, project),
            "kind": kind,
            "size_bytes": size,
            "digest": manifest.artifact_digests.get(name) or (digest(path) if manifest.status in FINAL else None),
        }
