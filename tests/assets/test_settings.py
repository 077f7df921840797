"""What is said about a run: for one asset, for all of them, for the cluster."""

from __future__ import annotations

import json
import subprocess
import sys

import dagster as dg
import pytest

from r2v_assets.definitions import defs
from r2v_assets.settings import ClusterConfig, RunSettings, StageConfig
from r2v_assets.slurm.profile import Profile
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import read_manifest
from tests.assets.conftest import PARTITION, REPOSITORY, Project


def test_the_launchpad_shows_every_field() -> None:
    job = defs.resolve_implicit_global_asset_job_def()
    schema = job.get_config_schema_snapshot()
    defaults = json.loads(
        next(
            field.default_value_as_json_str
            for kind in schema.all_config_snaps_by_key.values()
            for field in kind.fields or []
            if field.name == "bc_policy" and field.default_provided
        )
    )
    shown = defaults["config"]
    assert set(shown) == set(StageConfig.model_fields) and set(shown["cluster"]) == set(ClusterConfig.model_fields)
    assert None not in shown.values() and None not in shown["cluster"].values()  # the launchpad leaves out nulls


def test_an_assets_settings_count_more_than_the_runs() -> None:
    run = RunSettings(
        config="a.yaml",
        slm="big",
        parallel=3,
        overrides=["x=1"],
        tags=["paper"],
        cluster=ClusterConfig(gpus=4, time="10:00:00"),
    )
    own = StageConfig(overrides=["x=2"], tags=["paper", "long"], cluster=ClusterConfig(gpus=1))
    both = own.within(run)
    assert both.config == "a.yaml" and both.tags == ["paper", "long"]
    assert both.overrides == ["slm.model=big", "agent.parallel=3", "x=1", "x=2"]
    assert both.resources() == {"gpus": 1, "time": "10:00:00"}
    assert StageConfig(config="b.yaml").within(run).config == "b.yaml"


def test_resources_of_a_run_stand_over_the_profile() -> None:
    profile = Profile(shared="/x", name="mine")
    asked = profile.asking("bc_policy", {"gpus": 3, "time": "1-00:00:00"})
    assert (
        asked.resources("bc_policy").gpus == 3 and "--time=1-00:00:00" in asked.resources("bc_policy").sbatch_options()
    )
    assert asked.resources("verifier") == profile.resources("verifier")
    with pytest.raises(R2VError, match=r"cluster.memory: .*many"):
        profile.asking("bc_policy", {"memory": "many"})
    with pytest.raises(R2VError, match=r"cluster.time: 1 is not longer than warn_s"):
        profile.asking("bc_policy", {"time": "1"})


def test_settings_of_the_run_reach_every_asset_of_it(project: Project) -> None:
    shared = {"config": "configs/small.yaml", "tags": ["shared"], "overrides": ["benchmark.splits.train=4"]}
    config = json.dumps({"resources": {"settings": {"config": shared}}})
    command = ["asset", "materialize", "-m", "r2v_assets.definitions", "--select", "task_suite,trajectory_run"]
    done = project.run("dagster", *command, "--partition", PARTITION, "--config-json", config)
    assert done.returncode == 0, done.stderr
    runs = [read_manifest(path.parent) for path in project.root.glob("**/run_manifest.json")]
    assert {run.stage for run in runs} == {"task_suite", "collect"}
    assert all(run.tags == ["shared"] and run.config["benchmark"]["splits"]["train"] == 4 for run in runs)
    cluster = json.dumps({"resources": {"settings": {"config": {**shared, "cluster": {"gpus": 2}}}}})
    done = project.run("dagster", *command, "--partition", PARTITION, "--config-json", cluster)
    assert done.returncode != 0 and "cluster: gpus: stages run on this machine" in done.stdout + done.stderr


def test_dg_checks_lists_and_launches(project: Project) -> None:
    # a checkout of its own: dg reads .env where it runs, which would name the instance of the one that is tested
    for name in ("r2v_assets", "r2v_core", "pyproject.toml", "workspace.yaml"):
        (project.root / name).symlink_to(REPOSITORY / name)

    def run_dg(*args: str) -> subprocess.CompletedProcess[str]:
        code = "from dagster_dg_cli.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            cwd=project.root, env=project.environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    assert "All definitions loaded successfully" in run_dg("check", "defs").stdout
    listed = json.loads(run_dg("list", "defs", "--json").stdout)
    assert {"task_suite", "bc_policy", "report"} <= {row["asset_key"] for row in listed["assets"]}
    config = json.dumps({"resources": {"settings": {"config": {"config": "configs/small.yaml"}}}})
    told = run_dg("launch", "--assets", "task_suite", "--partition", PARTITION, "--config-json", config)
    assert "superseded" not in (told.stdout + told.stderr).lower()
    assert [event.partition for event in project.materializations("task_suite")] == [PARTITION]


def test_owners_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from r2v_assets.ownership import owners

    assert owners() == ["team:r2v"]
    monkeypatch.setenv("R2V_OWNERS", "team:agents, jo@example.org")
    assert owners() == ["team:agents", "jo@example.org"]
    node = defs.resolve_asset_graph().get(dg.AssetKey("bc_policy"))
    assert list(node.owners) == ["team:r2v"]
    (reference,) = node.metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith("r2v_core/stages/train_bc.py")
    text = (REPOSITORY / "r2v_core/stages/train_bc.py").read_text().splitlines()
    assert text[reference.line_number - 1].startswith("def run(")
