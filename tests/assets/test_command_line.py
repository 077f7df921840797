"""What ``dagster asset materialize`` can't do is answered in one line, before any work."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from r2v_assets.command_line import check_command_line
from r2v_assets.definitions import defs
from tests.assets.conftest import PARTITION, Project

HERE = ["--partition", PARTITION]


def config(asset: str, **settings: object) -> list[str]:
    return ["--config-json", json.dumps({"ops": {asset: {"config": settings}}})]


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """This process works in the project."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("R2V_PROJECT", str(project.root))
    monkeypatch.setenv("DAGSTER_HOME", str(project.root / "dagster_home"))
    return project


def answer(*arguments: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        check_command_line(["asset", "materialize", "-m", "r2v_assets.definitions", *arguments], defs)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--select", "bc_polcy", *HERE], "--select bc_polcy: there is no such asset. Did you mean 'bc_policy'?"),
        (["--select=task_suite,bc_polcy", *HERE], "there is no such asset. Did you mean 'bc_policy'?"),
        (["--select", "group:evaluaton", *HERE], "Did you mean 'group:evaluation'?"),
        (["--select", "bc_policy and (", *HERE], "--select bc_policy and (: not a selection of assets"),
        (
            ["--select", "bc_policy"],
            "--partition is missing: an asset is made for an experiment and a seed, e.g. ",
        ),
        (["--select", "task_suite", "--partition", "textworld:exprt|1"], "Did you mean 'textworld:expert'?"),
        (["--select", "task_suite", "--partition-range", f"{PARTITION}...textworld:expert|2"], "a run of its own"),
        (
            ["--select", "task_suite", *HERE, "--config-json", "[1]"],
            '--config-json [1]: write an object, e.g. \'{"ops": ',
        ),
        (["--select", "task_suite", *HERE, *config("task_suite", overides=[])], "Did you mean 'overrides'?"),
        (["--select", "task_suite", *HERE, *config("task_suite", resume="maybe")], "root:ops:task_suite:config:resume"),
        (["--select", "task_suite", *HERE, *config("task_suite", overrides=["slm.modle=x"])], "mean 'slm.model'?"),
        (["--select", "task_suite", *HERE, *config("task_suite", config="configs/none.yaml")], "configs/none.yaml"),
    ],
)
def test_refusals(here: Project, arguments: list[str], words: str) -> None:
    assert words in answer(*arguments)


def test_a_config_file_that_is_no_yaml_is_named(here: Project) -> None:
    (here.root / "run.yaml").write_text("ops: [")
    assert "--config run.yaml:1:7: malformed YAML" in answer("--select", "task_suite", *HERE, "-c", "run.yaml")


@pytest.mark.parametrize(
    ("select", "missing"),
    [
        ("group:evaluation", "'evaluation_clean' needs 'dpo_policy' of partition"),
        ("candidates,router_features", "'candidates' needs 'perturbed_dataset' of partition"),
        ("bc_policy", "'bc_policy' needs 'trajectory_run' of partition"),
    ],
)
def test_inputs_that_nobody_makes_are_missed_before_work(here: Project, select: str, missing: str) -> None:
    told = answer("--select", select, *HERE)
    assert missing in told and "Make it first:\n  dagster asset materialize" in told


@pytest.mark.parametrize("select", ["*report", "trajectory_run", "task_suite,trajectory_run,perturbed_dataset"])
def test_what_the_run_makes_itself_is_not_missed(here: Project, select: str) -> None:
    check_command_line(["asset", "materialize", "--select", select, *HERE], defs)
    check_command_line(["asset", "materialize", "--select", "variant_comparison"], defs)
    check_command_line(["asset", "list", "--select", "nonsense"], defs)
    check_command_line(["asset", "materialize", "--help"], defs)


def test_the_command_itself_says_so_and_makes_nothing(project: Project) -> None:
    done = project.run(*project.materialize_args("evaluation_clean,evaluation_noisy"))
    assert done.returncode == 2 and "Error: 'evaluation_clean' needs 'dpo_policy'" in done.stderr
    assert "Traceback" not in done.stderr and not list(Path(project.root).glob("**/run_manifest.json"))
