"""Finished runs on disk, for stages that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r2v_core.config import LoadedConfig, config_snapshot
from r2v_core.partition import Partition
from r2v_core.runs.manifest import RunManifest, utc_now, write_manifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.trajectory import Episode, episodes_digest

CALIBRATION = "certified: something, with probability 0.9"
"""What a router of :func:`finished` says of its calibration."""


def finished(
    project: Path, loaded: LoadedConfig, stage: str, partition: Partition, episodes: list[Episode], **fields: Any
) -> RunManifest:
    """A finished upstream run on disk, in the folder of outputs that its config names."""
    folder = project / loaded.config.paths.outputs / stage / f"{stage}_{partition.seed}"
    folder.mkdir(parents=True)
    write_parquet(folder / "trajectories.parquet", episodes, Episode)
    artifacts = {"episodes": "trajectories.parquet"}
    if stage == "train_router":
        (folder / "router.json").write_text(json.dumps({"calibration": {"statement": CALIBRATION}}), encoding="utf-8")
        artifacts["settings"] = "router.json"
    values: dict[str, Any] = {
        "run_id": folder.name,
        "stage": stage,
        "benchmark": partition.benchmark,
        "provider": "env",
        "model": "expert",
        "seed": partition.seed,
        "partition": partition.key,
        "variant": partition.variant,
        "status": "done",
        "created_at": utc_now(),
        "finished_at": utc_now(),
        "output_dir": str(folder),
        "config": config_snapshot(loaded.config),
        "digest": episodes_digest(episodes),
        "artifacts": artifacts,
        "counts": {"temperature": 1.5},
    }
    manifest = RunManifest(**(values | fields))
    write_manifest(manifest, folder)
    return manifest
