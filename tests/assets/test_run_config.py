"""Settings that nothing would read are refused before work."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from r2v_assets.run_config import refuse_unused_config
from r2v_core.errors import R2VError
from tests.assets.conftest import PARTITION, Project


def run(*selected: str, config: dict[str, object], tags: dict[str, str] | None = None) -> dg.DagsterRun:
    keys = frozenset(dg.AssetKey(name) for name in selected)
    return dg.DagsterRun("__ASSET_JOB", asset_selection=keys or None, run_config=config, tags=tags)


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ({"bc": {}}, "ops.bc: there is no such asset. Known: "),
        ({"bc_polcy": {}}, "ops.bc_polcy: there is no such asset. Did you mean 'bc_policy'?"),
        ({"bc_policy": {}, "verifier": {}}, "ops.verifier: this run makes bc_policy and would drop these settings"),
    ],
)
def test_settings_of_another_asset_are_refused(ops: dict[str, object], words: str) -> None:
    with pytest.raises(R2VError) as caught:
        refuse_unused_config(run("bc_policy", config={"ops": ops}))
    assert words in str(caught.value)


def test_settings_that_are_read_pass() -> None:
    refuse_unused_config(run("bc_policy", config={"ops": {"bc_policy": {}}}))
    refuse_unused_config(run("bc_policy", config={}))
    beside = {"variant_comparison": {"config": {"seeds": [1]}}}
    refuse_unused_config(run("result_tables", "variant_comparison", config={"ops": beside}))
    part = {"dagster/backfill": "abc"}  # a backfill may leave out what is there already
    refuse_unused_config(run("bc_policy", config={"ops": {"verifier": {}}}, tags=part))
    with pytest.raises(R2VError):
        refuse_unused_config(run("bc_policy", config={"ops": {"bc": {}}}, tags=part))


def test_on_the_command_line_nothing_starts(project: Project) -> None:
    config = json.dumps({"ops": {"bc": {"config": {"overrides": ["training.bc.max_steps=1"]}}}})
    command = ["asset", "materialize", "-m", "r2v_assets.definitions", "--select", "task_suite"]
    done = project.run("dagster", *command, "--partition", PARTITION, "--config-json", config)
    told = done.stdout + done.stderr
    assert done.returncode != 0 and "run config: ops.bc: there is no such asset. Known: " in told
    assert "Traceback" not in told and not list(project.root.glob("**/run_manifest.json"))


def test_a_range_of_partitions_is_answered_in_one_line(project: Project) -> None:
    command = ["asset", "materialize", "-m", "r2v_assets.definitions", "--select", "task_suite"]
    done = project.run("dagster", *command, "--partition-range", f"{PARTITION}...textworld:expert|2")
    assert done.returncode == 2 and "each partition is a run of its own" in done.stderr
    assert "Traceback" not in done.stderr
