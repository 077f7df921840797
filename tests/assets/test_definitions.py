"""What Dagster loads: light, and equal to the stage table."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest
from dagster import AssetKey

from r2v_assets.definitions import defs
from r2v_assets.executor import executor
from r2v_assets.partitions import PARTITIONS, check_partition
from r2v_assets.project import experiments, seeds
from r2v_assets.run_config import COMPARISON
from r2v_core.errors import R2VError
from r2v_core.stages.table import BY_ASSET, STAGES

HEAVY = ("torch", "transformers", "textworld", "pandas", "pyarrow", "duckdb", "sklearn", "matplotlib", "trl", "peft")


def test_definitions_load_in_under_four_seconds_and_without_heavy_libraries() -> None:
    code = (
        "import sys, time, r2v_assets.definitions\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, seconds = done.stdout.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert float(seconds) < 4  # of its own processor time: what else the machine does is not counted


def test_core_never_imports_dagster() -> None:
    code = (
        "import sys, pkgutil, importlib, r2v_core\n"
        "for m in pkgutil.walk_packages(r2v_core.__path__, 'r2v_core.'):\n"
        "    importlib.import_module(m.name)\n"
        "print('dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_graph_is_the_stage_table() -> None:
    graph = defs.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert keys == {*BY_ASSET, COMPARISON}
    for stage in BY_ASSET.values():
        node = graph.get(AssetKey(stage.asset))
        assert {key.to_user_string() for key in node.parent_keys} == {STAGES[up].asset for _, up in stage.inputs}
        assert node.partitions_def == PARTITIONS
        assert node.code_version == stage.version
        assert stage.title in (node.description or "")
        assert node.group_name != "default" and node.kinds


def test_jobs_cover_all_assets() -> None:
    alone = {f"{asset}_job": {asset} for asset in BY_ASSET}
    wanted = {"mrp": {stage.asset for stage in STAGES.values()}, "full_pipeline": set(BY_ASSET), **alone}
    assert {job.name for job in defs.jobs or ()} == set(wanted)
    for name, assets in wanted.items():
        job = defs.resolve_job_def(name)
        assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == assets
        assert isinstance(job.executor_def, dg.ExecutorDefinition) and job.executor_def.name == "in_process"


@pytest.mark.parametrize(
    ("compute", "at_once", "name"),
    [
        ("local", None, "in_process"),
        ("local", "2", "2_stages_at_once"),
        ("slurm", None, "8_stages_at_once"),
        ("slurm", "1", "in_process"),
    ],
)
def test_how_many_stages_of_a_pipeline_run_at_once(
    monkeypatch: pytest.MonkeyPatch, compute: str, at_once: str | None, name: str
) -> None:
    monkeypatch.setenv("R2V_COMPUTE", compute)
    monkeypatch.setenv("R2V_STAGES_AT_ONCE", at_once or "")
    assert executor().name == name


@pytest.mark.parametrize("wrong", ["0", "two", "-1", "1.5"])
def test_a_number_of_stages_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("R2V_STAGES_AT_ONCE", wrong)
    with pytest.raises(R2VError, match=f"R2V_STAGES_AT_ONCE={wrong}: expected an integer of 1 or more"):
        executor()


def test_partitions_are_the_experiments() -> None:
    keys = set(PARTITIONS.get_partition_keys())
    assert keys == {f"{name}|{seed}" for name in experiments() for seed in seeds()}  # and no key that can't run


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("textworld:expert|99", ["99", "has the seeds 1, 2", "experiments.yaml"]),
        ("textworld:expart|1", ["Did you mean 'textworld:expert'?"]),
        ("textworld", ["is not a partition key"]),
    ],
)
def test_unknown_partition_is_named_with_the_known_ones(key: str, words: list[str]) -> None:
    with pytest.raises(R2VError) as caught:
        check_partition(key)
    assert all(word in str(caught.value) for word in words)
