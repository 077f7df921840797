"""Assets as jobs of a real cluster: what a user sees of a job that goes well."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from r2v_core.registry import DataRegistry
from tests.slurm.conftest import Materialization, SlurmProject

CANARY = "canary-7f3a9c51"


def test_asset_runs_as_a_job_with_a_readable_name(first: tuple[SlurmProject, str]) -> None:
    project, shown = first
    (run,) = project.manifests("task_suite")
    (record,) = project.records("task_suite")
    (job,) = record["attempts"]
    assert (run.status, run.slurm_job_id) == ("done", job["job_id"])
    assert job["name"] == "r2v.task_suite.textworld:expert.1" and record["finished"]
    assert job["name"] in project.cluster.run("sacct", "-X", "-n", "-P", "-j", job["job_id"], "-o", "JobName")
    assert "SLURM job" in shown and "tasks 9/9 (100%)" in shown


def test_facts_of_the_job_are_in_metadata_and_registry(first: tuple[SlurmProject, str]) -> None:
    project, _ = first
    (event,) = project.materializations("task_suite")
    metadata = {name: value.value for name, value in event.metadata.items()}
    (row,) = project.sql("SELECT * FROM slurm_jobs")
    for facts in (row, {name.removeprefix("slurm/"): value for name, value in metadata.items()}):
        assert (facts["state"], facts["exit_code"], facts["nodes"]) == ("COMPLETED", "0:0", "cpu1")
        assert facts["elapsed_s"] > 0 and facts["queue_wait_s"] >= 0 and facts["max_memory_mb"] > 10
        assert 0 < facts["cpu_efficiency"] <= 1
    assert metadata["slurm/job_id"] == row["job_id"] and metadata["slurm/partition"] == row["partition"] == "cpu"
    DataRegistry(project=project.root).rebuild()
    (again,) = project.sql("SELECT * FROM slurm_jobs")
    assert again == row


def test_log_reaches_dagster_while_the_job_runs(project: SlurmProject) -> None:
    run = Materialization(project, overrides=["collection.episodes_per_task=20"])
    stage = project.pause_stage(run)
    run.says("starting run textworld_env_expert_")  # the stage is stopped: this came before its end
    assert not run.ended()
    os.kill(stage, signal.SIGCONT)
    assert run.done().n_episodes == len(project.episodes()) == 63


def test_processes_of_a_job_share_its_work(project: SlurmProject) -> None:
    overrides = ["agent.parallel=1"]
    alone = Materialization(project, overrides=overrides).done()
    project.edit_profile(assets={"trajectory_run": {"processes": 2}})
    together = Materialization(project, overrides=overrides).done()
    assert together.run_id != alone.run_id and together.digest == alone.digest
    (log,) = (project.root / together.output_dir / "slurm").glob("job-*.log")
    assert "[collect] episodes" in log.read_text() and "[collect 1] episodes" in log.read_text()


def test_secrets_reach_the_job_and_are_nowhere_else(ssh_project: SlurmProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2V_TEST_API_KEY", CANARY)
    run = Materialization(ssh_project, overrides=["collection.episodes_per_task=20"])
    stage = ssh_project.pause_stage(run)
    monkeypatch.delenv("R2V_TEST_API_KEY")  # so that it is not found in what this process starts from here on
    assert f"R2V_TEST_API_KEY={CANARY}".encode() in Path(f"/proc/{stage}/environ").read_bytes()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if CANARY.encode() in line]
    jobs = ssh_project.cluster.run("scontrol", "show", "job", "--details")
    os.kill(stage, signal.SIGCONT)
    run.done()
    assert CANARY not in jobs + ssh_project.cluster.run("sacct", "--format=ALL", "-P") + "\n".join(run.log())
    where = [str(ssh_project.root), str(ssh_project.cluster.root / "log")]
    found = subprocess.run(["grep", "-rlaF", CANARY, *where], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")
