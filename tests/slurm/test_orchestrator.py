"""``r2v slurm run``: a pipeline handed to the cluster goes on by itself, past its own time limit, and can be ended."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

import dagster as dg
import pytest

from r2v_assets.slurm.cli import _seeds
from r2v_core.errors import R2VError
from tests.assets.conftest import PARTITION
from tests.slurm.conftest import SlurmProject, told, wait_for

COLLECT = ("--config", "configs/small.yaml", "--overrides", "collection.episodes_per_task=20")
ASSETS = ("--asset", "task_suite", "--asset", "trajectory_run")


def r2v(project: SlurmProject, *args: str) -> subprocess.CompletedProcess[str]:
    return project.run("r2v_assets.cli", "slurm", *args)


def hand_over(project: SlurmProject) -> str:
    """Submit; the orchestrator's job id."""
    done = r2v(project, "run", "--partition", PARTITION, *ASSETS, *COLLECT)
    assert done.returncode == 0 and done.stdout.startswith(f"{PARTITION}: job "), told(done)
    return done.stdout.split("job ")[1].split(";")[0]


def log(project: SlurmProject, job_id: str) -> str:
    return "\n".join(path.read_text() for path in project.root.glob(f"data/orchestrators/*-{job_id}.log"))


def state(project: SlurmProject, job_id: str) -> str:
    return project.cluster.run("squeue", "-h", "-j", job_id, "-o", "%T") if job_id in queue(project) else "ENDED"


def queue(project: SlurmProject) -> list[str]:
    return project.cluster.run("squeue", "-h", "-o", "%i").split()


def test_a_pipeline_handed_over_survives_its_orchestrators_time_limit(project: SlurmProject) -> None:
    orchestrator = hand_over(project)
    again = r2v(project, "run", "--partition", PARTITION, *ASSETS, *COLLECT)
    assert again.stdout == f"{PARTITION}: an orchestrator is at work on it already, job {orchestrator}\n"
    stage = project.pause_stage()
    shown = r2v(project, "status").stdout
    assert "orchestrator" in shown and "trajectory_run" in shown and f"textworld_expert_1-{orchestrator}.log" in shown
    # what SLURM sends when the time limit is near
    project.cluster.run("scancel", "--signal=USR1", "--batch", orchestrator)
    wait_for(lambda: "goes on in the queue" in log(project, orchestrator), 60, "the requeue")
    began = "trajectory_run · "
    wait_for(lambda: log(project, orchestrator).count(began) == 2, 90, "the orchestrator to be back")
    os.kill(stage, signal.SIGCONT)
    wait_for(lambda: state(project, orchestrator) == "ENDED", 120, "the end")
    assert "1 of 2 assets made, the others were up to date" in log(project, orchestrator), log(project, orchestrator)
    (collect,), (record,) = project.manifests("collect"), project.records("collect")
    assert collect.status == "done" and len(record["attempts"]) == 1
    assert len(set(project.episodes())) == len(project.episodes()) == 63
    with project.instance() as instance:  # watched in the UI like any other run
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": PARTITION}))
    assert dg.DagsterRunStatus.SUCCESS in {run.status for run in runs if run.job_name == "trajectory_run_job"}


def test_cancel_ends_orchestrator_and_stage(project: SlurmProject) -> None:
    orchestrator = hand_over(project)
    stage = project.pause_stage()  # until the command has done its work, which takes seconds
    done = r2v(project, "cancel", "--partition", PARTITION)
    with suppress(ProcessLookupError):
        os.kill(stage, signal.SIGCONT)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"cancelling job {orchestrator}: orchestrator of ") and ": trajectory_run of " in second
    wait_for(lambda: not queue(project), 60, "both to end")
    (collect,) = project.manifests("collect")
    assert collect.status == "partial"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--partition", "textworld:exprt|1"), "Did you mean 'textworld:expert'?"),
        (("--partition", PARTITION, "--seeds", "3-1"), "--seeds 3-1: write 1-5, 1,3,4 or both"),
        (("--partition", PARTITION, "--seeds", "1,99"), "unknown partition 'textworld:expert|99'"),
        (("--partition", PARTITION, "--asset", "bc_polcy"), "Did you mean 'bc_policy'?"),
        (("--partition", PARTITION, "--overrides", "slm.modle=x"), "Did you mean 'slm.model'?"),
    ],
)
def test_what_can_not_run_is_not_submitted(project: SlurmProject, arguments: tuple[str, ...], words: str) -> None:
    done = r2v(project, "run", *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, told(done)
    assert not queue(project)


def test_seeds_as_people_write_them() -> None:
    assert _seeds("1-3, 7,2") == [1, 2, 3, 7]
    with pytest.raises(R2VError):
        _seeds("1-")
