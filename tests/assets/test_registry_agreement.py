"""Materialisations, registry and files: the check on every asset, and the sensor that keeps them in agreement."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from r2v_assets.lineage import lineage_metadata
from r2v_assets.registry import RegistryResource
from r2v_assets.registry_agreement import AGREEMENT_CHECKS, CHECK, registry_agreement
from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import RunInput, RunManifest, read_manifest, write_manifest
from r2v_core.stages.table import BY_ASSET
from tests.assets.conftest import Project, make_project

FIRST = "textworld:expert|1"


def write_run(project: Project, run_id: str, **fields: object) -> Path:
    """A finished run with one file, as a stage by hand leaves it."""
    directory = project.root / "data" / "runs" / run_id
    directory.mkdir(parents=True)
    (directory / "tasks.jsonl").write_text("{}\n")
    values = {
        "run_id": run_id, "stage": "task_suite", "benchmark": "textworld", "provider": "env", "model": "expert",
        "seed": 1, "partition": FIRST, "status": "done", "created_at": "2026-01-01T00:00:00Z", "digest": f"d-{run_id}",
        "output_dir": f"data/runs/{run_id}", "artifacts": {"tasks": "tasks.jsonl"},
    }  # fmt: skip
    write_manifest(RunManifest.model_validate(values | fields), directory)
    return directory


def report(instance: dg.DagsterInstance, directory: Path, partition: str = FIRST) -> None:
    """Tell Dagster of a run."""
    manifest = read_manifest(directory)
    metadata = {"run_id": manifest.run_id, "run_dir": dg.MetadataValue.path(str(directory)), "digest": manifest.digest}
    instance.report_runless_asset_event(dg.AssetMaterialization("task_suite", partition=partition, metadata=metadata))


@pytest.fixture
def local(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Project, dg.DagsterInstance]]:
    """A project of this process, with its instance."""
    monkeypatch.setenv("R2V_PROJECT", str(project.root))
    with project.instance() as instance:
        yield project, instance


def look(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance, cursor=cursor, resources={"registry": RegistryResource()})
    found = registry_agreement(context)
    assert isinstance(found, dg.SensorResult)
    for event in found.asset_events:
        instance.report_runless_asset_event(event)  # as the sensor daemon does
    return found


def verdicts(result: dg.SensorResult) -> list[tuple[str, bool]]:
    events = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    return [(event.asset_key.to_user_string(), event.passed) for event in events]


def test_deleting_a_run_fails_the_check_and_bringing_it_back_passes_it(
    local: tuple[Project, dg.DagsterInstance],
) -> None:
    project, instance = local
    for run_id, partition in (("one", FIRST), ("two", "textworld:expert|2")):
        report(instance, write_run(project, run_id), partition)
    result = look(instance)
    assert {run.run_id for run in DataRegistry(project.root).query()} == {"one", "two"}  # made by hand, found on disk
    assert verdicts(result) == []
    shutil.move(project.root / "data/runs/one", project.root / "away")
    result = look(instance, result.cursor)
    assert verdicts(result) == [("task_suite", False)]
    told = str(result.asset_events[0].description)
    assert f"1 of 2 partitions lost their run; materialise them again. {FIRST}, one: " in told
    result = look(instance, result.cursor)
    assert verdicts(result) == []  # nothing new to say
    shutil.move(project.root / "away", project.root / "data/runs/one")
    (project.root / "data/runs/two/tasks.jsonl").unlink()
    result = look(instance, result.cursor)
    assert verdicts(result) == [("task_suite", False)] and "two: " in str(result.asset_events[0].description)
    (project.root / "data/runs/two/tasks.jsonl").write_text("{}\n")
    result = look(instance, result.cursor)
    assert verdicts(result) == [("task_suite", True)]
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("task_suite"), CHECK), limit=10
    )
    assert [record.status.value for record in history] == ["SUCCEEDED", "FAILED", "FAILED"]


def test_a_registry_that_can_not_be_read_is_said_and_nothing_is_forgotten(
    local: tuple[Project, dg.DagsterInstance],
) -> None:
    project, instance = local
    report(instance, write_run(project, "one"))
    (project.root / "data" / "registry.duckdb").write_text("no database")
    result = look(instance, '{"task_suite": ["x"]}')
    assert "r2v registry rebuild" in str(result.skip_reason) and result.cursor == '{"task_suite": ["x"]}'


def test_every_asset_has_the_check() -> None:
    assert {key.asset_key.to_user_string() for check in AGREEMENT_CHECKS for key in check.check_keys} == set(BY_ASSET)


def test_a_page_links_the_upstream_asset_its_dagster_run_and_unfolds_merges(
    local: tuple[Project, dg.DagsterInstance],
) -> None:
    project, _ = local
    write_run(project, "suite", dagster_run_id="abc-1")
    merge = write_run(project, "merge_x", stage="merge")
    (merge / "merge.json").write_text('{"runs": {"r1": {"kept": 3, "dropped": 2, "held_out": 1}}}')
    inputs = [
        RunInput(role="tasks", run_id="suite", digest="d1", path="data/runs/suite"),
        RunInput(role="trajectories", run_id="merge_x", digest="d2", path="data/runs/merge_x"),
        RunInput(role="perturbed", run_id="lost", digest="d3", path="data/runs/lost"),
    ]
    run = read_manifest(merge).model_copy(update={"run_id": "bc", "inputs": inputs, "dagster_run_id": "abc-2"})
    told = lineage_metadata(run)
    table = str(told["inputs"].value)
    assert "| tasks | [task_suite](/assets/task_suite?partition=textworld%3Aexpert%7C1) | [suite](/runs/abc-1)" in table
    assert "| trajectories | merge | `merge_x`" in table and "| perturbed | files gone | `lost`" in table
    merged = told["merged/trajectories"]
    assert isinstance(merged, dg.TableMetadataValue)
    assert merged.records[0].data == {"run_id": "r1", "kept": 3, "dropped": 2, "held_out": 1}
    assert "r2v registry lineage bc" in str(told["registry"].value)
    assert isinstance(told["dagster_run"], dg.DagsterRunMetadataValue)


def test_training_on_a_merge_by_hand_and_in_dagster_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> None:
    """Real stages of two seeds, one policy from both: same digest both ways, checks pass, the page shows the runs."""
    project = make_project(tmp_path_factory.mktemp("merged"), model_cache)
    config = ("--config", "configs/small.yaml")
    for seed in (1, 2):
        for stage in ("task_suite", "collect", "perturb"):
            done = project.run(f"r2v_core.stages.{stage}", *config, "--partition", f"textworld:expert|{seed}")
            assert done.returncode == 0, done.stderr
    merge = "data.merge=benchmark = 'textworld' AND stage = 'collect' AND status = 'done'"
    by_hand = project.run("r2v_core.stages.train_bc", *config, "--overrides", merge)
    assert by_hand.returncode == 0, by_hand.stderr
    assert "of 2 runs" in by_hand.stderr and "nanobind" not in by_hand.stderr
    done = project.materialize("bc_policy", overrides=[merge])
    assert done.returncode == 0, done.stderr
    (event,) = project.materializations("bc_policy")
    runs = [read_manifest(path.parent) for path in (project.root / "outputs/mrp/train_bc").glob("*/run_manifest.json")]
    assert len(runs) == 2 and len({run.digest for run in runs}) == 1
    assert event.tags is not None and event.tags["dagster/data_version"] == runs[0].digest
    collected = [run.run_id for run in DataRegistry(project.root).query(stage="collect")]
    merged = event.metadata["merged/trajectories"]
    assert isinstance(merged, dg.TableMetadataValue)
    assert sorted(str(record.data["run_id"]) for record in merged.records) == sorted(collected)
    with project.instance() as instance:
        logs = instance.all_logs(instance.get_runs(limit=1)[0].run_id)
    checks = {
        e.dagster_event.event_specific_data.check_name: e.dagster_event.event_specific_data.passed
        for e in logs
        if e.dagster_event and e.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
    }
    assert checks == {"trained_on_train_split": True, CHECK: True}
    sources = DataRegistry(project.root).sql("SELECT data_run_id FROM training_sets WHERE data_stage = 'collect'")
    assert set(sources["data_run_id"]) == set(collected)
