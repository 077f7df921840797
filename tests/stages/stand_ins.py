"""Finished runs of trainings that did not take place, for stages that read them while a script plays the policy."""

from __future__ import annotations

from pathlib import Path

from r2v_core.config import LoadedConfig, config_snapshot
from r2v_core.models.router import Router
from r2v_core.runs.artifacts import digests
from r2v_core.runs.directories import runs_folder
from r2v_core.runs.manifest import RunManifest, utc_now, write_manifest
from r2v_core.stages.table import STAGES


def stand_in(root: Path, loaded: LoadedConfig, partition: str, stage: str) -> Path:
    """A finished run of a training that did not take place, with an empty adapter; its directory."""
    run_dir = runs_folder(root, loaded.config.paths, STAGES[stage]) / stage
    (run_dir / "adapter").mkdir(parents=True)
    files = {"adapter": "adapter"}
    manifest = RunManifest(
        run_id=stage, stage=stage, benchmark="textworld", provider="env", model="expert", seed=1, partition=partition,
        status="done", created_at=utc_now(), output_dir=str(run_dir.relative_to(root)), digest=stage,
        config=config_snapshot(loaded.config), artifacts=files, artifact_digests=digests(run_dir, files),
    )  # fmt: skip
    write_manifest(manifest, run_dir)
    return run_dir


def stand_in_for_all(root: Path, loaded: LoadedConfig, partition: str, router: Router) -> None:
    """Stand in for every training; the router's run holds this one."""
    for name in ("train_bc", "train_verifier", "train_dpo"):
        stand_in(root, loaded, partition, name)
    router.save(stand_in(root, loaded, partition, "train_router"))
