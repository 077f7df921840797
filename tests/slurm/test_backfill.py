"""Many partitions side by side through Dagster's daemon, as the UI starts them; cancelling a run as the UI does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from tests.slurm.conftest import Materialization, SlurmProject, clear, make_slurm_project, use, wait_for

SEEDS = 24
LIMIT = 6
KEYS = [f"textworld:expert|{seed}" for seed in range(1, SEEDS + 1)]
ENDED = (BulkActionStatus.COMPLETED_SUCCESS, BulkActionStatus.COMPLETED_FAILED, BulkActionStatus.FAILED)
TINY = {
    "defaults": ["small"],
    "benchmark": {"splits": {"train": 1, "router": 1, "validation": 1, "test": 1}},
}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, game_cache: Path, cluster: Any, first: tuple[SlurmProject, str]
) -> Iterator[SlurmProject]:
    """A project of 24 seeds with Dagster's daemon at work."""
    project = make_slurm_project(tmp_path_factory.mktemp("backfill"), game_cache, cluster, ssh=False)
    (project.root / "configs/tiny.yaml").write_text(yaml.safe_dump(TINY))
    listed = {"seeds": list(range(1, SEEDS + 1)), "experiments": {"textworld:expert": {"config": "tiny.yaml"}}}
    (project.root / "configs/experiments.yaml").write_text(yaml.safe_dump(listed))
    daemon = project.start("dagster._daemon", "run", "-m", "r2v_assets.definitions")
    with pytest.MonkeyPatch.context() as patch:
        use(project, patch)
        yield project
    daemon.terminate()
    try:
        daemon.wait(60)
    except subprocess.TimeoutExpired:
        daemon.kill()
    clear(cluster)


def backfill(project: SlurmProject, instance: dg.DagsterInstance, asset: str, keys: list[str], config: str) -> str:
    """What the UI's "Materialize selected partitions" does."""
    definitions = subprocess_definitions()
    job = PartitionBackfill.from_asset_partitions(
        backfill_id=make_new_backfill_id(),
        asset_graph=definitions.resolve_asset_graph(),
        partition_names=keys,
        asset_selection=[dg.AssetKey(asset)],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config={"ops": {asset: {"config": {"config": config}}}},
    )
    instance.add_backfill(job)
    return job.backfill_id


def subprocess_definitions() -> dg.Definitions:
    """Definitions over the project's own 24 seeds (this process may have loaded others)."""
    from r2v_assets.partitions import ExperimentPartitions
    from r2v_assets.project import experiments, seeds
    from r2v_core.stages.table import BY_ASSET

    partitions = ExperimentPartitions(experiments(), seeds())
    return dg.Definitions(assets=[dg.AssetSpec(name, partitions_def=partitions) for name in BY_ASSET])


def test_24_partitions_side_by_side_under_the_limit_and_a_failed_one_again(project: SlurmProject) -> None:
    cluster = project.cluster
    with project.instance() as instance:
        backfill_id = backfill(project, instance, "task_suite", KEYS, "configs/tiny.yaml")
        most, cancelled, end = 0, "", time.monotonic() + 900
        while time.monotonic() < end:
            status = instance.get_backfill(backfill_id)
            if status is not None and status.status in ENDED:
                break
            jobs = [line.split() for line in cluster.run("squeue", "-h", "-o", "%i %j").splitlines()]
            most = max(most, len(jobs))
            busy = [job for job in jobs if not job[1].endswith(".1")]  # seed 1 has its games, and is done in no time
            if not cancelled and busy:
                cancelled = busy[0][1].rpartition(".")[2]
                cluster.run("scancel", busy[0][0])
            time.sleep(0.25)
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    assert len(runs) == SEEDS, (project.root / "out.log").read_text()[-3000:]
    failed = [run.tags["dagster/partition"] for run in runs if run.status == dg.DagsterRunStatus.FAILURE]
    assert failed == [f"textworld:expert|{cancelled}"]
    assert 2 <= most <= LIMIT
    done = {run.partition for run in project.manifests("task_suite") if run.status == "done"}
    assert done == set(KEYS) - set(failed)
    assert project.materialize("task_suite", failed[0], config="configs/tiny.yaml").returncode == 0
    assert {run.partition for run in project.manifests("task_suite") if run.status == "done"} == set(KEYS)
    assert project.sql("SELECT count(*) AS n FROM slurm_jobs WHERE state = 'COMPLETED'") == [{"n": SEEDS}]


def test_run_cancelled_in_the_ui_cancels_its_job(project: SlurmProject) -> None:
    with project.instance() as instance:
        backfill(project, instance, "trajectory_run", KEYS[:1], "configs/small.yaml")
        wait_for(lambda: len(project.episodes()) >= 1, 180, "an episode")
        (record,) = project.records("collect")
        job_id = record["attempts"][0]["job_id"]
        run = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))[0]
        assert instance.run_coordinator is not None
        instance.run_coordinator.cancel_run(run.run_id)  # the UI's "Terminate"
        wait_for(lambda: instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED, 120)  # type: ignore[union-attr]
    wait_for(lambda: "CANCELLED" in project.cluster.run("sacct", "-X", "-n", "-j", job_id, "-o", "State%20"), 60)
    (manifest,) = project.manifests("collect")
    assert manifest.status == "partial"
    assert Materialization(project).done().run_id == manifest.run_id
