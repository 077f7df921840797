"""A finished run is built on by a new one: more episodes beside its own, more steps from its adapter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.directories import find_runs
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest, read_manifest, write_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages import cli
from r2v_core.stages.experiments import load_config
from r2v_core.stages.plan import plan
from r2v_core.stages.table import STAGES
from r2v_core.training.preferences import CandidateRow
from r2v_core.trajectory import Episode
from tests.stages.conftest import sealed

PARTITION = Partition.parse("textworld:expert|1")
Run = Callable[..., UpstreamRun]


def newest(project: Path, stage: str) -> UpstreamRun:
    paths = load_config("configs/small.yaml", project=project).config.paths
    return find_runs(project, paths, STAGES[stage])[0]


def base_of(manifest: RunManifest) -> list[tuple[str, str]]:
    return [(item.run_id, item.digest) for item in manifest.inputs if item.role == "base"]


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a stage in this process, as its command line does, and return the newest finished run of it."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("R2V_PROJECT", str(project))

    def stage(name: str, *arguments: str) -> UpstreamRun:
        assert cli.main(name, ["--config", "configs/small.yaml", *arguments]) == 0
        return newest(project, name)

    return stage


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a stage that refuses, and return what it says."""

    def stage(name: str, *arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(name, ["--config", "configs/small.yaml", *arguments]) == 2
        return capsys.readouterr().err

    return stage


def test_a_collection_is_continued(run: Run, refused: Callable[..., str]) -> None:
    run("task_suite")
    small = ("--overrides", "collection.episodes_per_task=1", "collection.explore_all_episodes=0")
    first = run("collect", *small)
    file = first.directory / "trajectories.jsonl"
    before = file.read_bytes()
    more = ("--overrides", "collection.episodes_per_task=2", "collection.explore_all_episodes=1")
    second = run("collect", *more, "--extend", first.manifest.run_id)
    assert base_of(second.manifest) == [(first.manifest.run_id, first.manifest.digest)]
    assert (second.manifest.n_episodes, second.manifest.counts["episodes_before"]) == (4 + 12, 4)
    episodes = list(JsonlStore(second.directory / "trajectories.jsonl", Episode))
    assert file.read_bytes() == before
    old = {episode.episode_id: episode for episode in JsonlStore(file, Episode)}
    assert {e.episode_id: e for e in episodes if e.episode_id in old} == old, "taken over as they were"
    assert max(Counter(episode.episode_id for episode in episodes).values()) == 1
    assert Counter(e.episode_id.rpartition("~")[2] for e in episodes) == {"e0": 4, "e1": 4, "e2": 4, "e3": 4}
    assert {e.metadata["run_id"] for e in episodes} == {first.manifest.run_id, second.manifest.run_id}
    parquet = read_parquet(second.directory / "trajectories.parquet", Episode)
    assert {e.episode_id for e in parquet} == {e.episode_id for e in episodes}
    third = run("collect", *small, "--extend", str(second.directory))
    assert third.manifest.n_episodes == 20
    assert base_of(third.manifest) == [(second.manifest.run_id, second.manifest.digest)]
    said = refused("collect", "--extend", first.manifest.run_id, "--overrides", "benchmark.max_steps=7")
    assert "was made with benchmark.max_steps = 8, and benchmark.max_steps = 7" in said  # said of the task suite


def test_a_continued_collection_that_was_killed_has_nothing_twice(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("task_suite")
    small = ("--overrides", "collection.episodes_per_task=1", "collection.explore_all_episodes=0")
    first = run("collect", *small)
    appended: list[str] = []
    original = JsonlStore.append

    def stop_at_the_third(self: Any, record: Any) -> None:
        if len(appended) == 2:
            raise KeyboardInterrupt
        appended.append(record.episode_id)
        original(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(JsonlStore, "append", stop_at_the_third)
        assert cli.main("collect", ["--config", "configs/small.yaml", *small, "--extend", first.manifest.run_id]) == 130
    second = run("collect", *small, "--extend", first.manifest.run_id)
    assert second.manifest.run_id != first.manifest.run_id
    assert len(list((project / "data" / "runs").glob("textworld_env_expert*"))) == 2, "the stopped run was taken up"
    ids = Counter(episode.episode_id for episode in JsonlStore(second.directory / "trajectories.jsonl", Episode))
    assert (len(ids), max(ids.values())) == (8, 1)


def test_held_out_templates_are_not_taken_over(run: Run, refused: Callable[..., str]) -> None:
    suite = run("task_suite")
    first = run("collect", "--overrides", "collection.episodes_per_task=1", "collection.explore_all_episodes=0")
    tasks = list(JsonlStore(suite.artifact("tasks"), Task))
    held_out = next(task.template_id for task in tasks if task.split == "train")
    moved = [task.model_copy(update={"split": "test"}) if task.template_id == held_out else task for task in tasks]
    suite.artifact("tasks").write_text("".join(task.model_dump_json() + "\n" for task in moved))
    sealed(suite.directory)
    said = refused("collect", "--extend", first.manifest.run_id)
    assert f"holds episodes of 1 templates that the task suite {suite.manifest.run_id} holds out" in said
    assert held_out in said


def test_what_can_not_be_extended_is_one_line(project: Path, run: Run, refused: Callable[..., str]) -> None:
    suite = run("task_suite")
    first = run("collect", "--overrides", "collection.episodes_per_task=1", "collection.explore_all_episodes=0")
    name = first.manifest.run_id
    assert refused("collect", "--extend", f"{name}x").endswith(f"Did you mean '{name}'?\n")
    said = refused("collect", "--extend", str(suite.directory))
    assert "is task_suite of 'textworld:expert|1', not collect of" in said
    write_manifest(read_manifest(first.directory).model_copy(update={"status": "partial"}), first.directory)
    assert "is 'partial', not done" in refused("collect", "--extend", name)
    assert "unknown option --extend" in refused("perturb", "--extend", name)
    with pytest.raises(R2VError, match="can be extended: collect, train_bc, train_verifier, train_dpo"):
        plan("task_suite", PARTITION, load_config("configs/small.yaml", project=project), project=project, extend=name)


def weights(run: UpstreamRun) -> dict[str, torch.Tensor]:
    return load_file(run.artifact("adapter") / "adapter_model.safetensors")


def same(one: UpstreamRun, other: UpstreamRun) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=1e-8) for name in a)


def spread_scores(path: Path) -> None:
    """Scores as a trained verifier gives them: two steps teach it next to nothing."""
    rows = [CandidateRow.model_validate_json(line) for line in path.read_text().splitlines()]
    for row in rows:
        for i, candidate in enumerate(row.candidates):
            candidate.score_step = candidate.score_outcome = float(i % 2)
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))


def test_trainings_go_on_from_their_adapters(
    project: Path, run: Run, refused: Callable[..., str], tiny_slm: SLMConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = "batch_size: 2, save_steps: 1, max_steps: 2"
    with (project / "configs" / "small.yaml").open("a") as file:
        file.write(f"slm: {{model: '{tiny_slm.model}', dtype: float32}}\n")
        file.write(f"training: {{bc: {{{quick}}}, verifier: {{{quick}}}, dpo: {{{quick}}}}}\n")
        file.write("candidates: {max_states: 12, k: 2, rank_by: verifier}\n")
    for stage in ("task_suite", "collect", "perturb"):
        run(stage)
    for stage in ("train_bc", "train_verifier"):
        first = run(stage)
        # steps so small that they change nothing to speak of show where the weights come from
        still = f"training.{stage.removeprefix('train_')}.learning_rate=1e-12"
        capsys.readouterr()
        second = run(stage, "--overrides", still, "--extend", first.manifest.run_id)
        assert f"building on {first.manifest.run_id}: 2 steps after its 2" in capsys.readouterr().err
        assert same(first, second)
        third = run(stage, "--extend", second.manifest.run_id)
        assert (third.manifest.counts["steps"], third.manifest.counts["steps_before"]) == (2, 4)
        assert base_of(third.manifest) == [(second.manifest.run_id, second.manifest.digest)]
        assert not same(second, third)
        assert len({each.manifest.fingerprint for each in (first, second, third)}) == 3
    candidates = run("candidates")
    spread_scores(candidates.artifact("candidates"))
    sealed(candidates.directory)
    first = run("train_dpo")
    extend = ("--extend", str(first.directory))
    second = run("train_dpo", "--overrides", "training.dpo.learning_rate=1e-12", *extend)
    assert same(first, second)
    line = json.loads((second.directory / "training_log.jsonl").read_text().splitlines()[0])
    assert line["rewards/margins"] != 0.0, "measured against the BC policy, not against where it began"
    assert "0 adds nothing" in refused("train_dpo", *extend, "--overrides", "training.dpo.max_steps=0")
    policy = newest(project, "train_bc")
    said = refused("train_bc", "--overrides", "training.lora.r=4", "--extend", policy.manifest.run_id)
    assert "training.lora was" in said
    other = run("train_bc", "--overrides", "training.bc.max_steps=1")
    said = refused("train_dpo", *extend, "--input", f"policy={other.directory}")
    assert f"add --input policy={policy.directory.relative_to(project)}" in said
