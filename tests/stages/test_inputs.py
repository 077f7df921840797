"""Which runs a stage reads: what today's configuration would make, never of another world."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.fingerprint import fingerprint
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.stages.experiments import load_config, partition_config
from r2v_core.stages.inputs import find_inputs
from r2v_core.stages.table import STAGES, inputs_of, is_on, pipeline
from tests.stages.conftest import ROOT, Stage


def manifests(project: Path, stage: str) -> list[RunManifest]:
    """Oldest first."""
    found = [read_manifest(path.parent) for path in (project / "data/runs").glob("*/run_manifest.json")]
    return sorted((run for run in found if run.stage == stage), key=lambda run: run.created_at)


def trajectories_of(run: RunManifest) -> str:
    return next(item.run_id for item in run.inputs if item.role == "trajectories")


def test_a_try_with_other_settings_takes_nobodys_place_and_another_world_is_refused(
    project: Path, stage: Stage
) -> None:
    other = ("--overrides", "collection.episodes_per_task=1")
    stage("task_suite")
    stage("collect")
    stage("collect", *other)
    described, tried = manifests(project, "collect")

    stage("perturb")
    assert trajectories_of(manifests(project, "perturb")[-1]) == described.run_id  # not the newest
    stage("perturb", *other)
    assert trajectories_of(manifests(project, "perturb")[-1]) == tried.run_id
    named = stage("perturb", "--input", f"trajectories=data/runs/{tried.run_id}")
    assert trajectories_of(manifests(project, "perturb")[-1]) == tried.run_id and "as today's" not in named.stderr

    before = sorted((project / "data/runs").iterdir())
    (suite,) = manifests(project, "task_suite")
    for extra in ((), ("--input", f"tasks=data/runs/{suite.run_id}")):
        refused = stage("collect", "--overrides", "benchmark.max_steps=7", *extra, check=False)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert (
            f"run {suite.run_id} was made with benchmark.max_steps = 8, and benchmark.max_steps = 7 in"
            in refused.stderr
        )
    assert sorted((project / "data/runs").iterdir()) == before
    stage("collect", "--overrides", "perturbations.seeds.test=5")  # what no run depends on yet may differ

    shutil.rmtree(project / "data/runs" / described.run_id)
    for run in manifests(project, "collect"):
        if run.run_id != tried.run_id:
            shutil.rmtree(project / "data/runs" / run.run_id)
    fallen_back = stage("perturb", "--no-resume")
    assert trajectories_of(manifests(project, "perturb")[-1]) == tried.run_id
    assert f"the newest one is read, {tried.run_id}" in fallen_back.stderr


def test_a_stage_that_is_switched_off_is_nobodys_input(tmp_path: Path) -> None:
    stage = STAGES["train_verifier"]
    off = load_config("configs/base.yaml", (), ROOT)
    on = load_config("configs/base.yaml", ["training.verifier.on_policy.episodes=8"], ROOT)
    assert [role for role, _ in inputs_of(stage, off.config)] == ["trajectories", "perturbed"]
    assert inputs_of(stage, on.config) == stage.inputs and stage.inputs[-1] == ("rollouts", "policy_rollouts")
    assert not is_on(STAGES["policy_rollouts"], off.config) and is_on(STAGES["policy_rollouts"], on.config)
    partition, measured = Partition.parse("textworld:expert|1"), ["training.verifier.on_policy.learn=false"]
    prints = {
        fingerprint(STAGES["policy_rollouts"], load_config("configs/base.yaml", overrides, ROOT), partition, [])
        for overrides in ([], measured, ["training.verifier.on_policy.episodes=8"])
    }
    assert len(prints) == 2, "whether rollouts are learnt from does not make them others"
    suites = {
        fingerprint(STAGES["task_suite"], load_config("configs/base.yaml", overrides, ROOT), partition, [])
        for overrides in ([], ["benchmark.splits.teacher=0"], ["benchmark.splits.teacher=3"])
    }
    assert len(suites) == 2, "a split that nothing is in decides nothing"
    with pytest.raises(
        R2VError, match=r"--input rollouts=… is read only where training\.verifier\.on_policy\.episodes"
    ):
        find_inputs(stage, off, partition, tmp_path, {"rollouts": tmp_path})


OWN = "teachers: {{own: {{provider: {provider}, model: {model}, base_url: '{url}'}}}}"


def test_what_a_projects_own_teacher_is_decides_the_runs_that_ask_it(tmp_path: Path) -> None:
    """The same name may stand for another model tomorrow; where it answers is no matter."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")

    def prints(
        model: str, *overrides: str, provider: str = "openai_compatible", url: str = "http://localhost:1/v1"
    ) -> dict[str, str]:
        (tmp_path / "configs/teachers.yaml").write_text(OWN.format(provider=provider, model=model, url=url))
        partition = Partition.parse("textworld:own|1")
        loaded = partition_config(partition, "configs/mrp.yaml", overrides, tmp_path)
        return {stage.name: fingerprint(stage, loaded, partition, []) for stage in pipeline(loaded.config)}

    def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
        return {name for name in before if before[name] != after[name]}

    asking = {"collect", "router_features", "train_router", "evaluate_clean", "evaluate_noisy"}
    small = prints("qwen-7b")
    assert changed(small, prints("qwen-72b")) == asking
    assert changed(small, prints("qwen-7b", provider="local")) == asking
    assert not changed(small, prints("qwen-7b", url="http://localhost:2/v1"))
    split = "benchmark.splits.teacher=4"
    trained = {model: prints(model, split, provider="trained") for model in ("owner/a", "owner/b")}
    assert changed(trained["owner/a"], trained["owner/b"]) == asking | {"train_teacher"}
    judged = ("candidates.scored_by=judge", "judge.teacher=own")
    assert changed(prints("a", *judged), prints("b", *judged)) == asking | {"candidates"}


def test_built_in_teachers_leave_fingerprints_as_they_are() -> None:
    partition = Partition.parse("textworld:expert|1")
    loaded = partition_config(partition, "configs/mrp.yaml", (), ROOT)
    assert not loaded.named_models
