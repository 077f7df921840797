"""A teacher that is trained here: the whole pipeline with one, on games that serve nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r2v_core.benchmarks.base import SPLITS, Task
from r2v_core.config.schema import Config, SLMConfig
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models.prompt import render_prompt
from r2v_core.partition import Partition
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.checks import no_template_leakage
from r2v_core.stages.cli import main
from r2v_core.stages.experiments import load_config
from r2v_core.stages.table import STAGES
from r2v_core.stages.teacher_factory import open_teacher
from r2v_core.teachers.base import Situation
from r2v_core.teachers.trained import TrainedTeacher
from r2v_core.training import callbacks
from r2v_core.trajectory import Episode
from tests.stages.conftest import ROOT, sealed
from tests.stages.fixed_output_model import model_that_says
from tests.stages.killing import run_with_kills

KEY = "textworld:taught|3"
ASKING = {"collect", "router_features", "train_router", "evaluate_clean", "evaluate_noisy"}
CONFIG = """
defaults: [textworld/noisy]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny, cache: {cache}}}
benchmark:
  max_steps: 4
  splits: {{train: 2, router: 4, validation: 4, test: 2, teacher: 2}}
  options: {{goals: [brief], mix: [{{family: coin_collector, level: 3}}]}}
slm: {{model: {small}, dtype: float32, max_action_tokens: 8}}
collection: {{episodes_per_task: 2, explore_all_episodes: 1}}
perturbations: {{seeds: {{train: 1, router: 3, validation: 3, test: 3}}}}
training:
  teacher: {{max_steps: 3, batch_size: 2, save_steps: 2, worlds: 2}}
  bc: {{max_steps: 1, batch_size: 2}}
  verifier: {{max_steps: 2, batch_size: 2, layers: 1}}
  dpo: {{max_steps: 0}}
  router: {{epochs: 3, cvar_epsilon: 0.6, scorer: logistic, baselines: [random_router]}}
candidates: {{k: 2, max_states: 4}}
evaluation: {{bootstrap: 20, methods: [r2v, slm_only, llm_only]}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_slm: SLMConfig, model_cache: Path) -> Path:
    """A project in which every stage of :data:`KEY` has run, in this process: one model goes east, the teacher west."""
    root = tmp_path_factory.mktemp("taught")
    small = model_that_says("go east", tiny_slm, root / "east")
    teacher = model_that_says("go west", tiny_slm, root / "west")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(small=small, cache=model_cache))
    (root / "configs/teachers.yaml").write_text(f"teachers: {{taught: {{provider: trained, model: {teacher}}}}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.chdir(root)
        for stage in STAGES:
            assert by_hand(stage) == 0, stage
    return root


def by_hand(stage: str, *arguments: str, key: str = KEY) -> int:
    return main(stage, ["--config", "configs/tiny.yaml", "--partition", key, *arguments])


def run_of(project: Path, stage: str) -> tuple[Path, RunManifest]:
    runs = [(path.parent, read_manifest(path.parent)) for path in project.glob("*/*/*/run_manifest.json")]
    (found,) = (run for run in runs if run[1].stage == stage)
    return found


def episodes_of(project: Path, stage: str) -> list[Episode]:
    return list(read_parquet(run_of(project, stage)[0] / "trajectories.parquet", Episode))


def test_who_asks_the_teacher_is_made_from_it(project: Path) -> None:
    taught = run_of(project, "train_teacher")[1]
    assert taught.provider == "trained" and taught.model.endswith("west") and taught.counts["steps"] == 3
    for stage in STAGES:
        read = [item for item in run_of(project, stage)[1].inputs if item.role == "teacher"]
        assert [item.digest for item in read] == [taught.digest] * (stage in ASKING), stage
    router = json.loads((run_of(project, "train_router")[0] / "router.json").read_text())
    assert router["calibration"]["certificates"]["r2v"]["risk"] == "excess"  # a teacher that can be wrong


def test_it_learns_from_the_expert_on_games_and_in_worlds_that_serve_nothing_else(project: Path) -> None:
    suite = UpstreamRun(*run_of(project, "task_suite"))
    tasks = list(JsonlStore(suite.artifact("tasks"), Task))
    games = {split: {task.template_id for task in tasks if task.split == split} for split in SPLITS}
    assert no_template_leakage(suite).passed and [len(some) for some in games.values()] == [2, 4, 4, 2, 2]
    learnt = episodes_of(project, "train_teacher")
    assert (
        {one.template_id for one in learnt}
        == games["teacher"]
        == set(json.loads((run_of(project, "train_teacher")[0] / "games.json").read_text()))
    )
    assert {(one.metadata["teacher_provider"], one.metadata["split"]) for one in learnt} == {("env", "teacher")}
    assert all(one.success for one in learnt if one.metadata["mode"] == "expert")
    elsewhere = {
        one.template_id for stage in (*ASKING - {"train_router"}, "perturb") for one in episodes_of(project, stage)
    }
    assert elsewhere == games["train"] | games["router"] | games["validation"] | games["test"]
    leaking = [task.model_copy(update={"split": "teacher"}) if task.split == "test" else task for task in tasks]
    with JsonlStore(project / "leaking.jsonl", Task) as store:
        for task in [*tasks, *leaking]:
            store.append(task)
    manifest = suite.manifest.model_copy(update={"artifacts": {"tasks": "leaking.jsonl"}})
    assert "in more than one split" in no_template_leakage(UpstreamRun(project, manifest)).message


def test_it_plays_what_it_reads_and_what_it_reads_is_what_the_agent_saw(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [one for one in episodes_of(project, "evaluate_noisy") if one.metadata["method"] == "llm_only"]
    steps = [(one, step) for one in alone for step in one.steps]
    assert {step.actor for _, step in steps} == {"teacher"}
    assert all(step.tokens_in > 0 and step.tokens_out > 0 for _, step in steps)
    assert all(one.cost == 50 * len(one.steps) for one in alone)
    noisy = [(one, step) for one, step in steps if step.clean is not None]
    assert noisy
    read: list[str] = []
    sample = Sampler.sample

    def watched(self: Sampler, prompts: list[str], *args: Any, **options: Any) -> Any:
        read.extend(prompts)
        return sample(self, prompts, *args, **options)

    monkeypatch.setattr(Sampler, "sample", watched)
    monkeypatch.setenv("R2V_PROJECT", str(project))
    teacher = open_teacher(context_of(project, "evaluate_noisy"))
    assert isinstance(teacher, TrainedTeacher)
    slm = load_config("configs/tiny.yaml", (), project).config.slm
    for one, step in noisy:
        seen = Situation(None, "You play.", one.goal, one.steps[: step.index], step.observation)  # type: ignore[arg-type]
        (advice,) = teacher.act([seen])
        agents = render_prompt(teacher.engine, slm, "You play.", one.goal, seen.history, step.observation)
        assert read[-1] == agents.text
        assert advice.action == step.action == "go west"


def context_of(project: Path, stage: str) -> Any:
    """The context of a finished run."""
    directory, manifest = run_of(project, stage)
    inputs = {i.role: UpstreamRun(project / i.path, read_manifest(project / i.path)) for i in manifest.inputs}
    config, partition = Config.model_validate(manifest.config), Partition.parse(manifest.partition)
    return SimpleNamespace(
        config=config,
        partition=partition,
        project=project,
        cache=Path(config.paths.cache),
        run_dir=directory,
        inputs=inputs,
        seed=partition.seed,
        report=Reporter("test"),
    )


def without(project: Path, stage: str, copy: Path) -> tuple[Path, RunManifest]:
    """A copy of the project without a stage's run, which is returned."""
    shutil.copytree(project, copy)
    whole, manifest = run_of(project, stage)
    shutil.rmtree(copy / whole.relative_to(project))
    return whole, manifest


def test_killed_while_it_collects_and_stopped_while_it_trains_it_ends_as_if_it_had_run_through(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "project"
    whole, manifest = without(project, "train_teacher", copy)
    arguments = ["train_teacher", "--config", "configs/tiny.yaml", "--partition", KEY]
    assert run_with_kills(copy, arguments, random.Random(1), 4) >= 1
    assert run_of(copy, "train_teacher")[1].digest == manifest.digest
    shutil.rmtree(run_of(copy, "train_teacher")[0])
    original = callbacks.TrainingLog.on_log

    def on_log(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        original(self, args, state, control, logs, **rest)
        if state.global_step == 1 and logs and "loss" in logs:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setenv("R2V_PROJECT", str(copy))
    monkeypatch.chdir(copy)
    with monkeypatch.context() as patched:
        patched.setattr(callbacks.TrainingLog, "on_log", on_log)
        assert by_hand("train_teacher") == 143
    assert run_of(copy, "train_teacher")[1].status == "partial"
    assert by_hand("train_teacher") == 0
    again, resumed = run_of(copy, "train_teacher")
    assert resumed.digest == manifest.digest and resumed.counts == manifest.counts
    assert (again / "preview.md").read_text() == (whole / "preview.md").read_text()


def test_a_teacher_that_knows_an_experiments_games_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "project"
    without(project, "collect", copy)
    taught = run_of(copy, "train_teacher")[0]
    tasks = JsonlStore(run_of(copy, "task_suite")[0] / "tasks.jsonl", Task)
    test = next(task for task in tasks if task.split == "test")
    (taught / "games.json").write_text(json.dumps([test.template_id]))
    sealed(taught)
    monkeypatch.setenv("R2V_PROJECT", str(copy))
    monkeypatch.chdir(copy)
    assert by_hand("collect") == 2
    said = capsys.readouterr().err
    assert f"'{test.template_id}' of split 'test'; make teacher_policy with" in said and "Traceback" not in said


def test_for_other_teachers_the_stage_is_a_run_of_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "project"
    without(project, "train_teacher", copy)
    monkeypatch.setenv("R2V_PROJECT", str(copy))
    monkeypatch.chdir(copy)
    assert by_hand("task_suite", key="textworld:expert|3") == 2
    assert "benchmark.splits.teacher is 2 (configs/tiny.yaml), but teacher 'expert' is not" in capsys.readouterr().err
    off = ("--overrides", "benchmark.splits.teacher=0")
    assert by_hand("collect", *off) == 2
    assert "benchmark.splits.teacher is 0" in capsys.readouterr().err
    for stage in ("task_suite", "train_teacher"):
        assert by_hand(stage, *off, key="textworld:expert|3") == 0
    directory, manifest = run_of(copy, "train_teacher")
    assert manifest.status == "done" and not manifest.n_episodes
    assert (directory / "preview.md").read_text().startswith("Switched off")
