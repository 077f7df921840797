"""The data stages as users run them: by hand, killed, resumed, repeated, misused."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from r2v_core.benchmarks.base import Task
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.stages.table import STAGES
from r2v_core.trajectory import Episode
from tests.stages.conftest import Stage, command, environment


def run_dir(project: Path, prefix: str) -> Path:
    (found,) = sorted((project / "data" / "runs").glob(f"{prefix}*"))
    return found


def test_suite_collect_perturb(project: Path, stage: Stage):
    made = stage("task_suite")
    assert (
        "2 validation templates can't certify that the expected failure" in made.stderr
    )  # said hours before the router
    tasks = list(JsonlStore(run_dir(project, "task_suite") / "tasks.jsonl", Task))
    assert Counter(task.split for task in tasks) == {"train": 4, "router": 2, "validation": 2, "test": 2}

    done = stage("collect", "--tag", "first", "--notes", "a try")
    assert "episodes 12/12 (100%)" in done.stderr
    collected = run_dir(project, "textworld_env_expert")
    manifest = read_manifest(collected)
    assert (manifest.status, manifest.n_episodes, manifest.tags, manifest.notes) == ("done", 12, ["first"], "a try")
    assert manifest.inputs[0].digest == read_manifest(run_dir(project, "task_suite")).digest
    episodes = list(JsonlStore(collected / "trajectories.jsonl", Episode))
    assert sorted(e.episode_id for e in episodes) == sorted(
        e.episode_id for e in read_parquet(collected / "trajectories.parquet", Episode)
    )
    trained_on = {task.task_id for task in tasks if task.split == "train"}
    assert {episode.task_id for episode in episodes} == trained_on
    for episode in episodes:
        assert episode.metadata["run_id"] == manifest.run_id
        assert (episode.metadata["teacher_provider"], episode.metadata["teacher_model"]) == ("env", "expert")
    expert = [episode for episode in episodes if episode.metadata["mode"] == "expert"]
    assert expert and all(episode.success for episode in expert)
    assert all(step.actor == "teacher" and step.progress for episode in expert for step in episode.steps)
    explored = [step for e in episodes for step in e.steps if step.actor == "explore"]
    assert explored and all(step.expert_action for step in explored)
    labels = Counter(label for e in episodes for step in e.steps for label in step.alternatives.values())
    assert labels[True] and labels[False]

    stage("perturb")
    perturbed = list(read_parquet(run_dir(project, "perturb") / "trajectories.parquet", Episode))
    by_id = {episode.episode_id: episode for episode in episodes}
    for episode in perturbed:
        source = by_id[episode.metadata["source_episode_id"]]
        assert (episode.goal, episode.success, episode.task_id) == (source.goal, source.success, source.task_id)
        assert [step.action for step in episode.steps if step.executed] == source.actions


def test_same_partition_from_scratch_gives_the_same_digests(project: Path, stage: Stage):
    digests = []
    for _ in range(2):
        for name in ("task_suite", "collect", "perturb"):
            stage(name)
    for prefix in ("task_suite", "textworld_env_expert", "perturb"):
        runs = [read_manifest(path) for path in sorted((project / "data" / "runs").glob(f"{prefix}*"))]
        assert len(runs) == 2 and runs[0].run_id != runs[1].run_id
        assert runs[0].digest == runs[1].digest
        digests.append(runs[0].digest)
    assert len(set(digests)) == 3
    stage("task_suite", "--partition", "textworld:expert|2")
    newest = sorted((project / "data" / "runs").glob("task_suite*"), key=lambda path: path.stat().st_mtime)[-1]
    assert read_manifest(newest).digest not in digests


@pytest.mark.parametrize("after", [1, 4])
def test_killed_collection_resumes_with_nothing_lost_and_nothing_twice(project: Path, stage: Stage, after: int):
    stage("task_suite")
    many = ["--overrides", "collection.episodes_per_task=6"]
    process = subprocess.Popen(
        command("collect", *many), cwd=project, env=environment(project), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    path = None
    while time.monotonic() < deadline and process.poll() is None:
        path = next((project / "data" / "runs").glob("textworld*/trajectories.jsonl"), None)
        if path and path.read_bytes().count(b"\n") >= after:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path is not None
    before = path.read_bytes()
    acknowledged = before[: before.rfind(b"\n") + 1]
    assert read_manifest(path.parent).status == "running"

    done = stage("collect", *many)
    assert "resuming run" in done.stderr
    assert path.read_bytes().startswith(acknowledged)
    ids = Counter(episode.episode_id for episode in JsonlStore(path, Episode))
    assert len(ids) == 4 * 7 and set(ids.values()) == {1}
    resumed = read_manifest(path.parent)
    assert resumed.status == "done" and resumed.n_episodes == 28

    stage("collect", "--no-resume", *many)
    fresh = [read_manifest(p) for p in (project / "data" / "runs").glob("textworld*") if p != path.parent]
    assert [m.digest for m in fresh] == [resumed.digest]


def test_stopping_leaves_a_partial_run_that_a_run_id_continues(project: Path, stage: Stage):
    stage("task_suite")
    many = ["--overrides", "collection.episodes_per_task=6", "--run-id", "mine"]
    process = subprocess.Popen(
        command("collect", *many), cwd=project, env={**environment(project), "PYTHONFAULTHANDLER": "1"}
    )
    path = project / "data" / "runs" / "mine" / "trajectories.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size):
        time.sleep(0.005)
    process.terminate()
    try:
        assert process.wait(timeout=60) == 143
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it says where it hangs
        raise
    assert read_manifest(path.parent).status == "partial"
    stage("collect", *many)
    assert read_manifest(path.parent).status == "done"
    again = stage("collect", *many, check=False)
    assert again.returncode == 2 and "run 'mine' is already done and immutable" in again.stderr


@pytest.mark.parametrize("name", sorted(STAGES))
def test_help_teaches(stage: Stage, name: str):
    shown = stage(name, "--help").stdout
    assert STAGES[name].asset in shown and "--overrides" in shown and "examples:" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "'trajectory_run' needs 'task_suite' of partition 'textworld:expert|1'"),
        (["--partition", "textworld:expert"], "'textworld:expert' is not a partition key"),
        (["--partition", "textworld:gpt-9|1"], "Unknown teacher 'gpt-9'"),
        (["--partition", "webarena:expert|1"], "sets benchmark.name: textworld"),
        (["--overrides", "collection.paralel=2"], "collection.parallel"),
        (["--overrides", "collection.parallel=many"], "collection.parallel"),
        (["--config", "configs/smal.yaml"], "small.yaml"),
        (["--input", "task=/nowhere"], "has no input 'task'; its inputs: tasks"),
        (["--spec", "nowhere.json"], "--spec nowhere.json"),
    ],
)
def test_bad_input_gets_one_clear_message(stage: Stage, arguments: list[str], expected: str):
    done = stage("collect", *arguments, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert expected in done.stderr
