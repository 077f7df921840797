"""Files of a finished run that were changed, cut or lost: nobody reads them, and no rebuild blesses them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.runs.artifacts import digests, verify
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet, write_parquet
from r2v_core.trajectory import Episode
from tests.stages.conftest import Stage


def run_of(project: Path, stage: str) -> Path:
    (found,) = (path for path in (project / "data/runs").iterdir() if path.name.startswith(stage + "_"))
    return found


@pytest.fixture
def made(project: Path, stage: Stage) -> Path:
    stage("task_suite")
    stage("collect")
    return project


def refused(stage: Stage, name: str, *words: str) -> None:
    done = stage(name, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and "Traceback" not in done.stderr
    assert all(word in last for word in (*words, "materialise the run again")), last


def test_flipped_verdicts_are_refused_and_not_blessed_by_a_rebuild(made: Path, stage: Stage) -> None:
    collected = run_of(made, "textworld")
    path = collected / "trajectories.parquet"
    episodes = list(read_parquet(path, Episode))
    flipped = [one.model_copy(update={"success": not one.success}) for one in episodes]
    write_parquet(path, flipped[: len(flipped) // 2], Episode)
    refused(stage, "perturb", collected.name, "trajectories.parquet is not what the run wrote")
    registry = DataRegistry(made)
    for _ in range(2):  # the first makes it, the second makes it anew
        registry.rebuild()
        found = [f for f in registry.doctor() if f.kind == "changed_files"]
        assert [(f.run_id, Path(f.path).name) for f in found] == [(collected.name, "trajectories.parquet")]
    lines = collected / "trajectories.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"success": true', b'"success": None'))
    with pytest.raises(R2VError, match=r"trajectories.jsonl is not what the run wrote"):
        registry.merge_runs([collected.name], made / "merged.jsonl")


def test_cut_tasks_are_refused(made: Path, stage: Stage) -> None:
    path = run_of(made, "task_suite") / "tasks.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    refused(stage, "perturb", "tasks.jsonl is not what the run wrote")


def test_a_folder_is_verified_file_by_file(made: Path) -> None:
    directory = run_of(made, "textworld")
    manifest = read_manifest(directory)
    folder = directory / "adapter"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(1000))
    artifacts = {"adapter": "adapter"}
    manifest = manifest.model_copy(update={"artifacts": artifacts, "artifact_digests": digests(directory, artifacts)})
    verify(directory, manifest)
    with (folder / "weights").open("r+b") as handle:
        handle.seek(500)
        byte = handle.read(1)
        handle.seek(500)
        handle.write(bytes([byte[0] ^ 1]))
    with pytest.raises(R2VError, match="adapter is not what the run wrote"):
        verify(directory, manifest)
    (folder / "weights").unlink()
    folder.rmdir()
    with pytest.raises(R2VError, match="adapter is gone"):
        verify(directory, manifest)
