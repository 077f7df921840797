"""Many partitions side by side through Dagster's daemon, asked for in a shell; cancelling a run as the UI does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.slurm.conftest import Materialization, SlurmProject, clear, make_slurm_project, use, wait_for

SEEDS = 7
LIMIT = 6
KEYS = [f"textworld:expert|{seed}" for seed in range(1, SEEDS + 1)]
TINY = {
    "defaults": ["small"],
    "benchmark": {"splits": {"train": 1, "router": 1, "validation": 1, "test": 1}},
}
LONG = {"defaults": ["small"], "collection": {"episodes_per_task": 30, "parallel": 1}}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, game_cache: Path, cluster: Any, first: tuple[SlurmProject, str]
) -> Iterator[SlurmProject]:
    """A project of seven seeds with Dagster's daemon at work."""
    project = make_slurm_project(tmp_path_factory.mktemp("backfill"), game_cache, cluster, ssh=False)
    for name, config in (("tiny", TINY), ("long", LONG)):
        (project.root / f"configs/{name}.yaml").write_text(yaml.safe_dump(config))
    set_config(project, "tiny.yaml")
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


def set_config(project: SlurmProject, config: str) -> None:
    """The experiment's own configuration, from here on."""
    listed = {"seeds": list(range(1, SEEDS + 1)), "experiments": {"textworld:expert": {"config": config}}}
    (project.root / "configs/experiments.yaml").write_text(yaml.safe_dump(listed))


def backfill(project: SlurmProject, instance: dg.DagsterInstance, asset: str, keys: list[str]) -> str:
    """Ask for partitions of an asset as documented; the request's id."""
    command = ("dagster", "job", "backfill", "-m", "r2v_assets.definitions", "-j", f"{asset}_job", "--noprompt")
    asked = project.run(*command, "--partitions", ",".join(keys))
    assert asked.returncode == 0, asked.stdout + asked.stderr
    return instance.get_backfills(limit=1)[0].backfill_id


def test_partitions_side_by_side_under_the_limit_and_a_failed_one_again(project: SlurmProject) -> None:
    cluster = project.cluster
    with project.instance() as instance:
        backfill_id = backfill(project, instance, "task_suite", KEYS)
        most, cancelled, end = 0, "", time.monotonic() + 900
        while time.monotonic() < end:
            runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
            if len(runs) == SEEDS and all(run.is_finished for run in runs):
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
    set_config(project, "long.yaml")
    with project.instance() as instance:
        backfill(project, instance, "trajectory_run", KEYS[:1])
        wait_for(lambda: len(project.episodes()) >= 1, 180, "an episode")
        stage = project.pause_stage()  # in the middle, however long cancelling takes
        (record,) = project.records("collect")
        job_id = record["attempts"][0]["job_id"]
        run = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))[0]
        assert instance.run_coordinator is not None
        instance.run_coordinator.cancel_run(run.run_id)  # the UI's "Terminate"
        state = ("squeue", "-h", "-j", job_id, "-o", "%T")
        wait_for(lambda: project.cluster.run(*state).strip() != "RUNNING", 90, "the job to be told to end")
        with suppress(ProcessLookupError):
            os.kill(stage, signal.SIGCONT)
        wait_for(lambda: instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED, 120)  # type: ignore[union-attr]
    wait_for(lambda: "CANCELLED" in project.cluster.run("sacct", "-X", "-n", "-j", job_id, "-o", "State%20"), 60)
    (manifest,) = project.manifests("collect")
    assert manifest.status == "partial"
    assert Materialization(project, config="configs/long.yaml").done().run_id == manifest.run_id
