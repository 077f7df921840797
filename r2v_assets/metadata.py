"""What an asset's page shows of a run."""

from __future__ import annotations

import base64
from pathlib import Path

import dagster as dg

from r2v_assets.inputs import RUN_DIR
from r2v_assets.labels import label
from r2v_assets.lineage import lineage_metadata
from r2v_assets.project import root
from r2v_assets.slurm.record import last_job
from r2v_assets.tables import table_metadata
from r2v_core.runs.manifest import RunManifest

PREVIEW_CHARS = 20_000
IMAGE_BYTES = 300_000
"""Larger images are linked by path instead of being embedded in the event log."""


def run_metadata(manifest: RunManifest, run_dir: Path) -> dict[str, dg.MetadataValue]:
    """Identity, numbers, previews and plots of a finished run."""
    metadata: dict[str, dg.MetadataValue] = {
        "run_id": dg.MetadataValue.text(manifest.run_id),
        RUN_DIR: dg.MetadataValue.path(str(run_dir)),
        "status": dg.MetadataValue.text(manifest.status),
        "digest": dg.MetadataValue.text(manifest.digest),
        "fingerprint": dg.MetadataValue.text(manifest.fingerprint),
        "wall_time_s": dg.MetadataValue.float(manifest.wall_time_s),
        "cost_usd": dg.MetadataValue.float(manifest.cost_usd),
    }
    if unpriced := manifest.counts.get("teacher_unpriced"):
        metadata["cost_usd"] = dg.MetadataValue.text(
            f"unknown: configs/prices.yaml has no price of {manifest.provider} model '{manifest.model}' "
            f"({unpriced:.0f} calls)"
        )
    if manifest.config_path:
        metadata["config"] = dg.MetadataValue.path(str(root() / manifest.config_path))
    metadata |= lineage_metadata(manifest)
    if manifest.n_episodes:
        metadata["episodes"] = dg.MetadataValue.int(manifest.n_episodes)
        metadata["steps"] = dg.MetadataValue.int(manifest.n_steps)
        metadata["success_rate"] = dg.MetadataValue.float(round(manifest.success_rate, 4))
    for name, number in manifest.counts.items():
        metadata.setdefault(label(name), dg.MetadataValue.float(round(float(number), 4)))
    for name, fact in last_job(run_dir).items():
        metadata[f"slurm/{name}"] = (
            dg.MetadataValue.text(fact) if isinstance(fact, str) else dg.MetadataValue.float(float(fact))
        )
    return metadata | table_metadata(manifest, run_dir) | _files(manifest, run_dir)


def _files(manifest: RunManifest, run_dir: Path) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {}
    for name, relative in manifest.artifacts.items():
        path = run_dir / relative
        if not path.is_file():
            continue
        if name == "preview":
            text = path.read_text(encoding="utf-8")
            found[name] = dg.MetadataValue.md(text if len(text) <= PREVIEW_CHARS else text[:PREVIEW_CHARS] + "\n\n…")
        elif path.suffix == ".png":
            found[f"plot/{path.stem}"] = _image(path)
        elif path.suffix == ".html":
            found[name] = dg.MetadataValue.path(str(path))
    return found


def _image(path: Path) -> dg.MetadataValue:
    if path.stat().st_size > IMAGE_BYTES:
        return dg.MetadataValue.path(str(path))
    data = base64.b64encode(path.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{data})")
