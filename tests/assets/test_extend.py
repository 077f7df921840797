"""In Dagster: a run that builds on another, and a file of episodes as an input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r2v_assets.checks import learnt_from
from r2v_core.runs.manifest import RunInput, RunManifest, read_manifest, write_manifest
from r2v_core.runs.spec import UpstreamRun
from tests.assets.conftest import Project

FEW = ["collection.episodes_per_task=1", "collection.explore_all_episodes=0"]


def newest(project: Project, asset: str) -> RunManifest:
    return read_manifest(Path(str(project.materializations(asset)[0].metadata["run_dir"].value)))


def test_the_launchpad_extends_a_run_and_names_an_input(project: Project) -> None:
    assert project.materialize("trajectory_run", overrides=FEW).returncode == 0
    first = newest(project, "trajectory_run")
    done = project.materialize("trajectory_run", overrides=FEW, extend=first.run_id)
    assert done.returncode == 0, done.stderr
    second = newest(project, "trajectory_run")
    assert (first.n_episodes, second.n_episodes) == (3, 6)
    assert [item.run_id for item in second.inputs if item.role == "base"] == [first.run_id]
    shutil.copy(project.root / first.output_dir / "trajectories.jsonl", project.root / "theirs.jsonl")
    done = project.materialize("perturbed_dataset", inputs=["trajectories=theirs.jsonl"])
    assert done.returncode == 0, done.stderr
    given = {item.role: item for item in newest(project, "perturbed_dataset").inputs}
    assert read_manifest(project.root / given["trajectories"].path).config["import"]["file"] == "theirs.jsonl"
    assert newest(project, "perturbed_dataset").n_episodes == 3


def test_the_leakage_check_sees_what_extended_trainings_learnt_from(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2V_PROJECT", str(project.root))

    def run(name: str, **inputs: str) -> UpstreamRun:
        (project.root / name).mkdir()
        manifest = RunManifest(
            run_id=name, stage="train_bc", benchmark="textworld", provider="env", model="expert", seed=1,
            partition="textworld:expert|1", status="done", created_at="2026-01-01T00:00:00Z", output_dir=name,
            inputs=[RunInput(role=role, run_id=path, digest="d", path=path) for role, path in inputs.items()],
        )  # fmt: skip
        write_manifest(manifest, project.root / name)
        return UpstreamRun(project.root / name, manifest)

    run("old"), run("new"), run("copies")
    run("first", trajectories="old", perturbed="copies")
    run("second", trajectories="new", perturbed="copies", base="first")
    third = run("third", trajectories="new", perturbed="copies", base="second")
    assert {upstream.manifest.run_id for upstream in learnt_from(third).values()} == {"old", "new", "copies"}
