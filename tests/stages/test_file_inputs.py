"""``--input trajectories=FILE.jsonl``: other people's episodes as training data, without a held-out template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import SLMConfig
from r2v_core.runs.directories import find_runs
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages import cli
from r2v_core.stages.experiments import load_config
from r2v_core.stages.table import STAGES
from r2v_core.trajectory import Episode, Observation, Step

Stage = Callable[..., tuple[int, str]]


@pytest.fixture
def stage(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stage:
    """Run a stage in this process; its exit status and what it says."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("R2V_PROJECT", str(project))

    def run(name: str, *arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main(name, ["--config", "configs/small.yaml", *arguments])
        return status, capsys.readouterr().err

    return run


def newest(project: Path, name: str) -> UpstreamRun:
    return find_runs(project, load_config("configs/small.yaml", project=project).config.paths, STAGES[name])[0]


@pytest.fixture
def tasks(project: Path, stage: Stage) -> list[Task]:
    assert stage("task_suite")[0] == 0
    return list(JsonlStore(newest(project, "task_suite").artifact("tasks"), Task))


def an_episode(name: str, template: str, **fields: Any) -> dict[str, Any]:
    steps = [Step(index=0, observation=Observation(state="A room."), action=f"take {name}", actor="teacher")]
    episode = Episode(
        episode_id=name, benchmark="textworld", task_id=f"{template}-x", template_id=template, goal="g", steps=steps,
        success=True,
    )  # fmt: skip
    return {**episode.model_dump(mode="json"), **fields}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


OLD = {
    "episode_id": "old",
    "task_id": "cook-7",
    "goal": "cook",
    "success": True,
    "steps": [{"observation": {"raw_text": "A kitchen."}, "action": {"raw_text": "go north"}, "reward": 0.5}],
    "metadata": {"teacher_model": "gpt-4o", "teacher_provider": "openai"},
}
"""As the R2V scripts wrote it."""


def test_a_file_is_learnt_from_without_held_out_templates(
    project: Path, stage: Stage, tasks: list[Task], tiny_slm: SLMConfig
) -> None:
    trained_on = next(task.template_id for task in tasks if task.split == "train")
    test = next(task for task in tasks if task.split == "test")
    file = write(
        project / "theirs.jsonl",
        an_episode("own", trained_on),
        an_episode("leak", test.template_id),
        an_episode("leak-by-task", "elsewhere", task_id=test.task_id),
        an_episode("other", trained_on, metadata={"split": "validation"}),
        an_episode("foreign", "elsewhere"),
        OLD,
    )
    status, said = stage("perturb", "--input", f"trajectories={file}")
    assert status == 0
    assert (
        "trajectories: 3 episodes of theirs.jsonl; left out: 2 of held-out templates, 1 of another split; 2 are of "
        "templates that the task suite does not know"
    ) in said
    perturbed = newest(project, "perturb")
    (given,) = (item for item in perturbed.manifest.inputs if item.role == "trajectories")
    imported = read_manifest(project / given.path)
    assert (imported.stage, imported.config["import"]) == ("import", {"file": "theirs.jsonl", "stage": "collect"})
    assert [item.role for item in imported.inputs] == ["tasks"]
    episodes = {e.episode_id: e for e in read_parquet(project / given.path / "trajectories.parquet", Episode)}
    assert set(episodes) == {"own", "foreign", "old"}
    assert episodes["old"].metadata["teacher_model"] == "gpt-4o"
    assert episodes["own"].metadata["teacher_model"] == "expert"
    assert {e.metadata["split"] for e in episodes.values()} == {"train"}

    with (project / "configs" / "small.yaml").open("a") as config:
        config.write(f"slm: {{model: '{tiny_slm.model}', dtype: float32}}\n")
        config.write("training: {bc: {max_steps: 1, batch_size: 1}}\n")
    status, said = stage("train_bc", "--input", "trajectories=theirs.jsonl")
    assert status == 0, said
    assert "examples from 3 clean" in said
    (again,) = (item for item in newest(project, "train_bc").manifest.inputs if item.role == "trajectories")
    assert again == given, "the same file is the same run"
    status, said = stage("perturb")
    assert status == 2
    assert "needs 'trajectory_run'" in said, "who does not name the file does not read it"


def test_what_is_wrong_is_named_by_file_and_line(project: Path, stage: Stage, tasks: list[Task]) -> None:
    file = write(
        project / "bad.jsonl",
        an_episode("a", "t"),
        "not json",
        {"episode_id": "b", "success": True},
        an_episode("a", "t"),
        an_episode("c", "t", benchmark="miniwob"),
    )
    status, said = stage("perturb", "--input", f"trajectories={file}")
    lines = said.removeprefix("error: ").splitlines()
    assert status == 2
    assert [line.split(": ")[0] for line in lines] == [f"{file}:{n}" for n in (2, 3, 4, 5)]
    assert lines[1].endswith("steps: not a list of steps")
    assert lines[2].endswith("episode 'a' is in line 1 already")
    assert lines[3].endswith("of benchmark 'miniwob', 'textworld:expert|1' is not")
    many = write(project / "many.jsonl", *["{}"] * 9)
    assert stage("perturb", "--input", f"trajectories={many}")[1].splitlines()[-1] == "… and 4 more lines"
    assert not list((project / "data" / "runs").glob("*import*"))


def test_nothing_left_and_no_place_for_a_file(project: Path, stage: Stage, tasks: list[Task]) -> None:
    test = next(task for task in tasks if task.split == "router")
    file = write(project / "leak.jsonl", an_episode("leak", test.template_id))
    status, said = stage("perturb", "--input", f"trajectories={file}")
    assert (status, said.startswith(f"error: {file}: nothing is left of 1 episodes (1 are of templates")) == (2, True)
    status, said = stage("perturb", "--input", f"tasks={file}")
    assert (status, "only episodes can come from a file" in said) == (2, True)
    status, said = stage("perturb", "--input", str(file))
    assert (status, "write ROLE=RUN_DIR; the roles: tasks, trajectories" in said) == (2, True)


def test_without_a_task_suite_it_says_so(project: Path, stage: Stage) -> None:
    file = write(project / "a.jsonl", an_episode("a", "t"))
    status, said = stage("train_bc", "--input", f"trajectories={file}")
    assert status == 2
    assert "has no task suite" in said
