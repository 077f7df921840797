"""``r2v plan``: the work that it announces is the work that is done, and what is there already is taken off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r2v_core.benchmarks.base import SPLITS, Task
from r2v_core.config.schema import Config
from r2v_core.partition import Partition
from r2v_core.runs.manifest import read_manifest, write_manifest
from r2v_core.stages.design import Condition, planned_cells
from r2v_core.stages.experiments import load_experiments, partition_config
from r2v_core.stages.forecast import Work, planned_tasks, work_of
from r2v_core.stages.table import STAGES
from tests.stages.conftest import ROOT, Stage, environment

PARTITION = "textworld:expert|1"
TASKS = {"train": 4, "router": 3, "validation": 2, "test": 5}


def announced(project: Path, *overrides: str, partition: str = PARTITION) -> dict[str, Any]:
    options = [word for text in overrides for word in ("--overrides", text)]
    command = [sys.executable, "-m", "r2v_assets.cli", "plan", partition, "--config", "configs/small.yaml", "--json"]
    done = subprocess.run([*command, *options], cwd=project, env=environment(project), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found | {"stages": {row["asset"]: row for row in found["stages"]}}


def config(**sections: Any) -> Config:
    return Config.model_validate({"benchmark": {"max_steps": 10, "splits": TASKS}} | sections)


def test_made_stages_are_taken_off_and_measure_the_next_seed(project: Path, stage: Stage) -> None:
    before = announced(project)
    assert all(row["state"] == "to do" and row["hours"] is None for row in before["stages"].values())
    for name in ("task_suite", "collect", "perturb"):
        stage(name)
    made = {run.stage: run for run in map(read_manifest, (project / "data/runs").iterdir())}
    for asset, name in (("trajectory_run", "collect"), ("perturbed_dataset", "perturb")):
        assert before["stages"][asset]["episodes"] == made[name].n_episodes
    assert before["stages"]["trajectory_run"]["steps"] >= made["collect"].n_steps

    after = announced(project)
    states = {asset: row["state"] for asset, row in after["stages"].items()}
    assert states["trajectory_run"] == f"up to date ({made['collect'].run_id})"
    assert [asset for asset, state in states.items() if state == "to do"] == list(after["stages"])[3:]
    assert after["left"]["episodes"] == before["left"]["episodes"] - sum(
        before["stages"][asset]["episodes"] for asset in ("trajectory_run", "perturbed_dataset")
    )

    twice = announced(project, "collection.episodes_per_task=5", partition="textworld:expert|2")["stages"]
    scale = (5 + 1) / (2 + 1)
    assert twice["trajectory_run"]["state"] == "to do"
    assert twice["trajectory_run"]["hours"] == pytest.approx(scale * made["collect"].wall_time_s / 3600)
    assert twice["trajectory_run"]["disk_gb"] > 0


def test_an_interrupted_run_is_named(project: Path, stage: Stage) -> None:
    stage("task_suite")
    stage("collect")
    (run_dir,) = (path for path in (project / "data/runs").iterdir() if read_manifest(path).stage == "collect")
    write_manifest(read_manifest(run_dir).model_copy(update={"status": "partial"}), run_dir)
    assert announced(project)["stages"]["trajectory_run"]["state"] == "to do: an interrupted run goes on"


@pytest.mark.parametrize("worlds", [0, 1])
@pytest.mark.parametrize("condition", ["clean", "noisy"])
def test_evaluations_are_counted_as_they_are_designed(condition: Condition, worlds: int) -> None:
    evaluation = {"methods": ["slm_only", "llm_only", "r2v"], "sweep": [0.2], "clean_seeds": 2}
    settings = config(evaluation=evaluation | {"worlds_per_template": worlds})
    common = {"benchmark": "b", "family": "f", "goal": "g", "split": "test", "max_steps": 10, "content": "c"}
    tasks = [Task(task_id=f"t{i}", template_id=f"t{i}", **common) for i in range(TASKS["test"])]
    cells = list(planned_cells(condition, tasks, settings.evaluation, settings.perturbations.seeds, 1))
    work = work_of(f"evaluate_{condition}", settings, TASKS)
    asking = [cell for cell in cells if cell.method != "slm_only"]
    proposing = [cell for cell in cells if cell.method != "llm_only"]
    assert (work.episodes, work.steps) == (len(cells), len(cells) * 10)
    assert work.teacher_calls == len(asking) * 10 and work.states == len(proposing) * 10
    assert work.new_tokens == work.states * 4 * 16


def test_a_budget_of_calls_and_a_judge_count() -> None:
    settings = config(
        agent={"max_teacher_calls": 3},
        candidates={"scored_by": "judge", "k": 2},
        perturbations={"seeds": {"router": 2, "validation": 5}},
        router_features={"episodes_per_task": 2},
    )
    work = work_of("router_features", settings, TASKS)
    episodes = (3 * 2 + 2 * 5) * 2
    assert work == Work(
        episodes=episodes,
        steps=episodes * 10,
        states=episodes * 10,
        new_tokens=episodes * 10 * 2 * 16,
        teacher_calls=episodes * 3,
        judge_calls=episodes * 10,
    )


def test_the_small_models_own_states_count_where_they_are_wanted() -> None:
    settings = config(
        training={"verifier": {"on_policy": {"episodes": 6, "state_share": 0.5, "continuations": 5}}},
        candidates={"k": 2},
    )
    episodes = 6 + 6 * 10 // 2 * 2 * 5  # and at half of their steps, 5 continuations of each of 2 candidates
    assert work_of("policy_rollouts", settings, TASKS) == Work(
        episodes=episodes, steps=episodes * 10, states=episodes * 10, new_tokens=episodes * 10 * 2 * 16
    )
    assert work_of("policy_rollouts", config(), TASKS) == Work()


def test_measuring_the_benefit_of_calls_counts_both_kinds_of_continuation() -> None:
    settings = config(
        router_features={"label": "benefit", "benefit": {"state_share": 0.25, "continuations": 4}}, candidates={"k": 2}
    )
    plain = work_of("router_features", config(candidates={"k": 2}), TASKS)
    tried = -(-plain.steps // 4)
    episodes = plain.episodes + 2 * tried * 4
    assert work_of("router_features", settings, TASKS) == Work(
        episodes=episodes,
        steps=episodes * 10,
        states=episodes * 10,
        new_tokens=episodes * 10 * 2 * 16,
        teacher_calls=plain.teacher_calls + tried,
    )


def test_a_teacher_that_is_trained_here_counts_where_there_are_tasks_for_it() -> None:
    settings = config(training={"teacher": {"max_steps": 7}}, collection={"episodes_per_task": 1})
    played = work_of("train_teacher", settings, TASKS | {"teacher": 5})
    assert played == Work(episodes=5 * 2, steps=5 * 2 * 10, updates=7)
    assert work_of("train_teacher", settings, TASKS) == Work()


def test_calibration_plays_every_level_of_every_calibrated_rule_or_nothing() -> None:
    router = {"baselines": ["entropy_router"]}
    played = work_of("train_router", config(training={"router": router}), TASKS)
    assert played.episodes == 2 * 3 * 14 * 2  # validation tasks × seeds × levels × (r2v, entropy)
    logged = config(training={"router": router | {"calibrate": "logged"}})
    assert work_of("train_router", logged, TASKS) == Work()


@pytest.mark.parametrize("name", load_experiments(ROOT / "configs/experiments.yaml").experiments)
def test_every_shipped_experiment_can_be_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2V_CONFIG", raising=False)
    shipped = partition_config(Partition.parse(f"{name}|1"), None, (), ROOT).config
    work = {stage: work_of(stage, shipped, planned_tasks(shipped)) for stage in STAGES}
    assert work["collect"].episodes >= shipped.benchmark.splits["train"] and work["train_bc"].updates > 0
    assert work["evaluate_noisy"].new_tokens > 0 and work["router_features"].teacher_calls > 0


def test_stages_of_others_announce_nothing() -> None:
    assert work_of("report", config(), TASKS) == work_of("somebody_elses", config(), TASKS) == Work()
    assert planned_tasks(config()) == TASKS | {"teacher": 0} and list(planned_tasks(config())) == list(SPLITS)
