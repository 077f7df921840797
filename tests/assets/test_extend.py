"""In Dagster: a run that builds on another, and a file of episodes as an input."""

from __future__ import annotations

import shutil
from pathlib import Path

from r2v_core.runs.manifest import RunManifest, read_manifest
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
