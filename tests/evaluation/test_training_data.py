"""The check that training read nothing that its partition holds out."""

from __future__ import annotations

from pathlib import Path

from r2v_core.benchmarks.base import Task
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.checks import trained_on_train_split
from r2v_core.trajectory import Episode, Observation, Step


def run(folder: Path, stage: str, artifacts: dict[str, str]) -> UpstreamRun:
    manifest = RunManifest(
        run_id=folder.name, stage=stage, benchmark="b", provider="p", model="m", seed=1, partition="b:m|1",
        status="done", created_at="2026-01-01T00:00:00Z", output_dir=str(folder), artifacts=artifacts,
    )  # fmt: skip
    return UpstreamRun(folder, manifest)


def episodes(folder: Path, *templates: str, split: str = "train") -> UpstreamRun:
    folder.mkdir()
    step = Step(index=0, observation=Observation(state="s"), action="go", actor="teacher")
    found = [
        Episode(
            episode_id=t, benchmark="b", task_id=t, template_id=t, goal="g", steps=[step], success=True,
            metadata={"split": split, "run_id": folder.name},
        )
        for t in templates
    ]  # fmt: skip
    write_parquet(folder / "e.parquet", found, Episode)
    return run(folder, "collect", {"episodes": "e.parquet"})


def suite(folder: Path) -> UpstreamRun:
    folder.mkdir()
    with JsonlStore(folder / "tasks.jsonl", Task) as store:
        for name, split in (("a", "train"), ("t", "test"), ("r", "router")):
            store.append(
                Task(
                    task_id=name, template_id=name, benchmark="b", family="f", goal="g", split=split, max_steps=3,
                    content=name,
                )
            )  # fmt: skip
    return run(folder, "task_suite", {"tasks": "tasks.jsonl"})


def test_a_held_out_template_of_another_seed_is_found(tmp_path: Path) -> None:
    trained, tasks = run(tmp_path, "train_bc", {}), suite(tmp_path / "suite")
    clean, other = episodes(tmp_path / "own", "a"), episodes(tmp_path / "other", "b", "t", "r")
    good = trained_on_train_split(trained, {"trajectories": clean}, tasks)
    assert good.passed and good.facts == {"episodes": 1, "templates": 1, "leaked": 0}
    bad = trained_on_train_split(trained, {"trajectories": clean, "perturbed": other}, tasks)
    assert not bad.passed and "suite holds out: r, t" in bad.message and bad.facts["leaked"] == 2
    unused = episodes(tmp_path / "unused", "t", split="test")
    assert trained_on_train_split(trained, {"trajectories": clean, "perturbed": unused}, tasks).passed
    assert not trained_on_train_split(trained, {"perturbed": unused}, tasks).passed
