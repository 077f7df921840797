"""A failed check of validity stops what is downstream, in the same Dagster run and in a later one."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from r2v_assets.assets import ASSETS
from r2v_assets.checks import ASSET_CHECKS, BLOCKING, CHECKS
from r2v_assets.compute.base import StageCompute
from r2v_assets.registry import RegistryResource
from r2v_assets.settings import RunSettings
from r2v_core.benchmarks.base import Task
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest, write_manifest
from r2v_core.runs.spec import StageSpec
from tests.assets.conftest import PARTITION, Project


class SuiteCompute(StageCompute):
    """Writes a task suite in which one template stands in two splits, or in one."""

    second: str

    def run(self, context: dg.AssetExecutionContext, spec: StageSpec, *_: object) -> RunManifest:
        assert spec.stage == "task_suite", f"{spec.stage} was started"
        run_dir = Path(spec.run_dir)
        with JsonlStore(run_dir / "tasks.jsonl", Task) as store:
            for split in ("train", self.second):
                store.append(
                    Task(
                        task_id=split, template_id="same", benchmark="b", family="f", goal="g", max_steps=1,
                        content=split, split=split,
                    )
                )  # fmt: skip
        manifest = RunManifest(
            run_id=spec.run_id, stage=spec.stage, benchmark="textworld", provider="env", model="expert", seed=1,
            partition=spec.partition, status="done", created_at="2026-01-01T00:00:00Z", digest=spec.run_id,
            output_dir=str(run_dir), artifacts={"tasks": "tasks.jsonl"},
        )  # fmt: skip
        write_manifest(manifest, run_dir)
        return manifest


def materialize(instance: dg.DagsterInstance, second: str, *assets: str) -> dg.ExecuteInProcessResult:
    defs = dg.Definitions(
        ASSETS,
        asset_checks=ASSET_CHECKS,
        resources={"compute": SuiteCompute(second=second), "registry": RegistryResource(), "settings": RunSettings()},
    )
    job = defs.resolve_implicit_global_asset_job_def()
    config = {"ops": {asset: {"config": {"config": "configs/small.yaml"}} for asset in assets}}
    selection = [dg.AssetKey(asset) for asset in assets]
    return job.execute_in_process(
        instance=instance, partition_key=PARTITION, asset_selection=selection, run_config=config, raise_on_error=False
    )


def errors(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    failed = [event for event in result.all_events if event.is_step_failure]
    return {str(event.step_key): event.step_failure_data.error.to_string() for event in failed}


def test_checks_of_validity_block() -> None:
    blocking = {spec.name for check in ASSET_CHECKS for spec in check.check_specs if spec.blocking}
    assert (
        blocking
        == BLOCKING
        == {"no_template_leakage", "trained_on_train_split", "traces_complete", "table_matches_traces"}
    )
    assert {name for _, name, _ in CHECKS} >= BLOCKING


def test_a_leaking_suite_stops_what_reads_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2V_PROJECT", str(project.root))
    with project.instance() as instance:
        together = materialize(instance, "test", "task_suite", "trajectory_run")
        assert not together.success
        started = {event.step_key for event in together.all_events if event.is_step_start}
        assert "task_suite" in started and "trajectory_run" not in started
        later = materialize(instance, "test", "trajectory_run")
        (told,) = errors(later).values()
        assert "task_suite of textworld:expert|1 failed its check 'no_template_leakage'" in told
        assert "in more than one split: same" in told and "was started" not in told
        assert materialize(instance, "train", "task_suite").success  # made again, and sound
        (told,) = errors(materialize(instance, "train", "trajectory_run")).values()
        assert "collect was started" in told
