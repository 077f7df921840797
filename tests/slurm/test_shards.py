"""A stage as a job array of its shards, on the real cluster's two nodes."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from r2v_assets.slurm.doctor import Doctor
from r2v_assets.slurm.jobs import task_ids
from r2v_assets.slurm.profile import load_profile
from r2v_core.errors import R2VError
from r2v_core.runs.processes import SHARD
from r2v_core.stages.sharded import progress
from tests.slurm.conftest import Materialization, SlurmProject, told, wait_for
from tests.slurm.test_cli import r2v
from tests.slurm.test_mishaps import N_EPISODES, assert_as_if_run_through

SOME = {"overrides": ["collection.episodes_per_task=20", "agent.parallel=1"]}


def shard_pid(project: SlurmProject, shard: str) -> int | None:
    """The process that plays a shard, where one does."""
    said = f"{SHARD}={shard}".encode()
    pids = [pid for pid in project.stage_pids() if said in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    return pids[0] if pids else None


def test_a_killed_element_runs_again_alone_and_the_data_are_those_of_one_process(project: SlurmProject) -> None:
    one_a_node = {"shards": 3, "shards_at_once": 2, "extra": ["--exclusive"]}
    project.edit_profile(cpu={"partition": "all"}, assets={"trajectory_run": one_a_node})
    orchestrator = project.start(*project.materialize_args("trajectory_run", **SOME))
    wait_for(lambda: list(project.root.glob("data/mrp/runs/*/trajectories.partshard1.jsonl")), 120, "shard 1 at work")
    pid = shard_pid(project, "1/3")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    orchestrator.kill()
    orchestrator.wait()
    (record,) = project.records("collect")
    array, run_dir = record["attempts"][0], next(project.root.glob("data/mrp/runs/textworld_*"))
    run = Materialization(project, **SOME)
    run.says("not submitting another")
    os.kill(pid, signal.SIGKILL)
    run.says("shard 1 failed (exit status 137:0); it alone begins again, where it stopped")
    assert f"job-{array['job_id']}_*.log" in r2v(project, "status").stdout
    manifest = run.done()
    assert not progress(run_dir) and not list(run_dir.glob("*.part*"))
    episodes = project.episodes()
    assert len(episodes) == len(set(episodes)) == N_EPISODES == manifest.n_episodes
    (record,) = project.records("collect")
    *elements, gather = record["attempts"]
    assert array["shards"] == 3 and [element["job_id"] for element in elements] == [
        f"{array['job_id']}_{index}" for index in range(3)
    ]
    assert {element["state"] for element in record["attempts"]} == {"COMPLETED"}
    assert gather["job_id"] == manifest.slurm_job_id and manifest.wall_time_s > 0
    lines = project.cluster.run("sacct", "-nDXP", "-j", array["job_id"], "-o", "JobID,NodeList").splitlines()
    ran = Counter(line.split("|")[0] for line in lines)
    assert ran == {f"{array['job_id']}_{index}": 2 if index == 1 else 1 for index in range(3)}
    assert {line.split("|")[1] for line in lines} == {"cpu1", "gpu1"}
    assert any(f"{N_EPISODES} of {N_EPISODES} episodes are on disk already" in line for line in run.log())
    jobs = project.sql(f"SELECT job_id FROM slurm_jobs WHERE run_id = '{manifest.run_id}'")
    assert len(jobs) == 4
    assert_as_if_run_through(project, manifest)


def test_more_elements_than_the_cluster_allows_are_refused_at_once(project: SlurmProject) -> None:
    project.edit_profile(assets={"trajectory_run": {"shards": 5000}})
    error = Materialization(project).error()
    assert "assets.trajectory_run.shards: 5000, but a job array of this cluster has at most 1001 elements" in error
    assert not project.records("collect") and project.cluster.run("squeue", "--noheader") == ""
    with pytest.raises(
        R2VError, match=r"trajectory_run: Invalid job array .*shards: 5000 in .*: job arrays have at most 1001 elements"
    ):
        Doctor(load_profile("test", project.root), project.root).check_requests()


def test_cancel_ends_a_whole_array(project: SlurmProject) -> None:
    options = ("--array=0-3%1", "--hold", "--account=r2v", "--output=/dev/null")
    name = "--job-name=r2v.trajectory_run.textworld:expert.1"
    array = project.cluster.run("sbatch", "--parsable", *options, name, "--wrap", "true")
    done = r2v(project, "cancel", "--partition", "textworld:expert|1", "--asset", "trajectory_run")
    assert done.returncode == 0 and f"cancelling job {array}_[0-3%1]: trajectory_run" in done.stdout, told(done)
    project.cluster.wait(lambda: not project.cluster.run("squeue", "--noheader"), 30, "the array to end")


@pytest.mark.parametrize(
    ("text", "expected"), [("3", [3]), ("0-2", [0, 1, 2]), ("1,4-5%2", [1, 4, 5]), ("0-1%1", [0, 1]), ("", [])]
)
def test_slurm_lists_elements_in_short(text: str, expected: list[int]) -> None:
    assert task_ids(text) == expected
