"""What clusters do to jobs, done to real ones: nothing is lost, nothing doubled, and the error says what helps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_assets.slurm import monitor
from r2v_assets.slurm.jobs import job_id_in
from r2v_core.config.schema import SLMConfig
from r2v_core.runs.manifest import RunManifest, read_manifest
from tests.assets.conftest import PARTITION
from tests.slurm.conftest import Materialization, SlurmProject, told, wait_for

LIMIT = {"time": "3"}
"""Minutes, with ``warn_s=90``: SLURM may signal up to a minute early, and some episodes have to be there by then."""
SOME = {"overrides": ["collection.episodes_per_task=20"]}
N_EPISODES = 63


def resume(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def assert_as_if_run_through(project: SlurmProject, cut: RunManifest) -> None:
    """The run that was cut off has the digest of one that is made in one go, by one process."""
    arguments = ["--run-id", "through", "--config", "configs/small.yaml", "--partition", PARTITION]
    done = project.run("r2v_core.stages.collect", *arguments, "--overrides", *SOME["overrides"])
    assert done.returncode == 0, told(done)
    assert read_manifest(project.root / "data/mrp/runs/through").digest == cut.digest


def assert_whole(project: SlurmProject, before: list[str]) -> None:
    """Every planned episode once, those of the first attempt among them, in their place."""
    episodes = project.episodes()
    assert len(episodes) == len(set(episodes)) == N_EPISODES
    assert episodes[: len(before)] == before


def test_job_at_its_time_limit_is_warned_and_goes_on_in_another(project: SlurmProject) -> None:
    project.edit_profile(defaults=LIMIT, warn_s=90)
    run = Materialization(project, **SOME)
    stage = project.pause_stage(run)  # a stage too slow for its time limit
    first = project.records("collect")[0]["attempts"][0]
    run_dir = next(project.root.glob("data/mrp/runs/textworld_*"))
    wait_for(lambda: (run_dir / "slurm" / f"warned-{first['job_id']}").exists(), 180, "SLURM's warning")
    before = project.episodes()
    resume(stage)
    manifest = run.done()
    (record,) = project.records("collect")
    attempts = record["attempts"]
    assert len(attempts) >= 2 and attempts[0]["job_id"] == first["job_id"]
    assert attempts[0]["exit_code"] == "75:0" and attempts[-1]["state"] == "COMPLETED"
    assert manifest.slurm_job_id == attempts[-1]["job_id"]
    assert_whole(project, before)
    assert any("reached its time limit; the run goes on in another job" in line for line in run.log())
    kept = re.findall(rf"(\d+) of {N_EPISODES} episodes are on disk already", "\n".join(run.log()))
    assert kept and all(int(n) >= len(before) for n in kept)
    rows = project.sql(f"SELECT job_id FROM slurm_jobs WHERE run_id = '{manifest.run_id}' ORDER BY job_id")
    assert [row["job_id"] for row in rows] == sorted(attempt["job_id"] for attempt in attempts)
    assert_as_if_run_through(project, manifest)


def test_processes_at_their_time_limit_go_on_in_another_job(project: SlurmProject) -> None:
    project.edit_profile(defaults=LIMIT, warn_s=90, assets={"trajectory_run": {"processes": 2}})
    run = Materialization(project, overrides=[*SOME["overrides"], "agent.parallel=1"])
    wait_for(lambda: len(project.episodes()) >= 3 and len(project.stage_pids()) == 3, 120, "both processes")
    workers = [pid for pid in project.stage_pids() if b"accelerate" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    run_dir = next(project.root.glob("data/mrp/runs/textworld_*"))
    wait_for(lambda: list((run_dir / "slurm").glob("warned-*")), 180, "SLURM's warning")
    before = project.episodes()
    for pid in workers:
        resume(pid)
    manifest = run.done()
    (record,) = project.records("collect")
    assert record["attempts"][0]["exit_code"] == "75:0" and record["attempts"][-1]["state"] == "COMPLETED"
    assert_whole(project, before)
    assert not list(run_dir.glob("*.part*"))
    assert_as_if_run_through(project, manifest)


def test_sampling_that_is_cut_off_ends_as_if_it_had_run_through(
    project: SlurmProject, tiny_slm: SLMConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small model's batches are others after a resume, unless an unfinished chunk is played whole again."""
    overrides = [
        f"slm.model={tiny_slm.model}",
        "slm.dtype=float32",
        "slm.max_action_tokens=16",
        "training.bc.max_steps=0",
    ]
    overrides += ["training.verifier.on_policy.episodes=15", "agent.parallel=5"]
    overrides += ["training.verifier.on_policy.state_share=0"]
    settings = ["--config", "configs/small.yaml", "--partition", PARTITION, "--overrides", *overrides]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the jobs have it: sums are rounded alike
    for stage in ("collect", "perturb", "train_bc"):
        made = project.run(f"r2v_core.stages.{stage}", *settings)
        assert made.returncode == 0, told(made)
    there = len(project.episodes())
    run = Materialization(project, "policy_rollouts", overrides=overrides)
    stage_pid = project.pause_stage(run, episodes=there + 7)
    before = project.episodes()[there:]
    job_id = project.records("policy_rollouts")[0]["attempts"][0]["job_id"]
    project.cluster.run("scancel", "--signal=USR1", "--batch", job_id)  # what SLURM sends when the limit is near
    (run_dir,) = project.root.glob("data/mrp/runs/policy_rollouts_*")
    wait_for(lambda: (run_dir / "slurm" / f"warned-{job_id}").exists(), 60, "the warning")
    resume(stage_pid)
    cut = run.done()
    assert len(project.records("policy_rollouts")[0]["attempts"]) == 2
    through = project.run("r2v_core.stages.policy_rollouts", *settings, "--run-id", "through")
    assert through.returncode == 0, told(through)
    assert 7 <= len(before) < 15
    assert read_manifest(project.root / "data/mrp/runs/through").digest == cut.digest


def test_out_of_memory_names_the_keys_that_help(project: SlurmProject) -> None:
    project.edit_profile(assets={"trajectory_run": {"memory": "30M"}})
    error = Materialization(project).error()
    assert "ran out of memory (memory: 30M" in error
    assert "assets.trajectory_run.memory in configs/slurm/test.yaml" in error and "collection.parallel" in error


def test_scancel_from_outside_is_said_and_the_run_can_be_resumed(project: SlurmProject) -> None:
    run = Materialization(project, **SOME)
    project.pause_stage(run)
    job_id = project.records("collect")[0]["attempts"][0]["job_id"]
    project.cluster.run("scancel", job_id)
    assert f"SLURM job {job_id} was cancelled from outside" in run.error()
    (manifest,) = project.manifests("collect")
    assert manifest.status == "partial"
    before = project.episodes()
    assert Materialization(project, **SOME).done().run_id == manifest.run_id
    assert_whole(project, before)


def test_lost_node_is_survived_on_another(project: SlurmProject) -> None:
    project.edit_profile(cpu={"partition": "all"})
    run = Materialization(project, **SOME)
    project.pause_stage(run)
    before = project.episodes()
    try:
        project.cluster.run("scontrol", "update", "nodename=cpu1", "state=down", "reason=test")
        project.cluster.run("scontrol", "update", "nodename=cpu1", "state=drain", "reason=test")  # and not back at once
        run.done()
    finally:
        project.cluster.run("scontrol", "update", "nodename=cpu1", "state=resume")
        project.cluster.wait_for_nodes()
    (attempt,) = project.records("collect")[0]["attempts"]
    assert (attempt["nodes"], attempt["restarts"], attempt["state"]) == ("gpu1", 1, "COMPLETED")
    assert any("has put job" in line and "restart 1" in line for line in run.log())
    assert_whole(project, before)


def test_a_preempted_job_goes_on_when_there_is_room(project: SlurmProject) -> None:
    run = Materialization(project, **SOME)
    project.pause_stage(run)
    before = project.episodes()
    whole_node = ("--partition=urgent", "--exclusive", "--mem=0", "--account=r2v", "--output=/dev/null", "--time=5")
    urgent = project.cluster.run("sbatch", "--parsable", *whole_node, "--wrap", "sleep 2")
    run.done()
    (attempt,) = project.records("collect")[0]["attempts"]
    assert (attempt["restarts"], attempt["state"]) == (1, "COMPLETED")
    assert project.cluster.run("sacct", "-n", "-X", "-j", urgent, "-o", "state%20") == "COMPLETED"
    assert_whole(project, before)


def test_what_a_login_node_prints_is_no_job_id(ssh_project: SlurmProject, tmp_path: Path) -> None:
    """A greeting at login, a wrapper around sbatch that has something to say: none of it is run, nothing is refused."""
    root, trap = ssh_project.cluster.root, tmp_path / "trap"
    greeting = f"Welcome to node 7; touch {trap}; $(touch {trap})"
    real = shutil.which("sbatch", path=ssh_project.cluster.environment["PATH"])
    wrapper = root / "wrapped" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\necho '{greeting}'\n{real} \"$@\" || exit\necho 'quota: 12 of 50 GB'\n")
    wrapper.chmod(0o755)
    profile = root / ".bash_profile"
    profile.write_text(f"echo '{greeting}'\nexport PATH={wrapper.parent}:$PATH\n")
    try:
        run = Materialization(ssh_project, "task_suite", overrides=["benchmark.splits.train=2"])
        assert run.done().status == "done", run.log()
    finally:
        profile.unlink()
        shutil.rmtree(wrapper.parent)
    (attempt,) = ssh_project.records("task_suite")[-1]["attempts"]
    assert attempt["job_id"].isdigit() and not trap.exists()


@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))),
    st.integers(1, 10**9),
)
def test_the_job_id_is_the_last_line_that_is_one(lines: list[str], number: int) -> None:
    others = [line for line in lines if not line.split(";")[0].strip().isdigit()]
    assert job_id_in("\n".join(others)) is None
    for said in (f"{number}", f"{number};cluster1", f"{number} \r"):
        assert job_id_in("\n".join([*others, said, *others, ""])) == str(number)


def test_hours_in_the_queue_are_no_timeout(project: SlurmProject, monkeypatch: pytest.MonkeyPatch) -> None:
    real, began = time.monotonic, time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: began + (real() - began) * 3600, sleep=time.sleep)  # an hour a second
    monkeypatch.setattr(monitor, "time", clock)
    project.edit_profile(defaults={"extra": ["--hold"]})
    run = Materialization(project)
    run.says("is pending (JobHeldUser)")
    began_waiting = real()
    while real() - began_waiting < 4:
        time.sleep(0.1)
        assert not run.ended()
    project.cluster.run("scontrol", "release", project.records("collect")[0]["attempts"][0]["job_id"])
    assert run.done().status == "done"


def test_killed_orchestrator_finds_its_job_again(project: SlurmProject) -> None:
    orchestrator = project.start(*project.materialize_args("trajectory_run", **SOME))
    stage = project.pause_stage()
    orchestrator.kill()
    orchestrator.wait()
    again = Materialization(project, **SOME)
    again.says("not submitting another")
    resume(stage)
    manifest = again.done()
    (record,) = project.records("collect")
    assert [attempt["job_id"] for attempt in record["attempts"]] == [manifest.slurm_job_id]
    assert len(project.manifests("collect")) == 1 and len(list(project.root.glob("data/mrp/runs/textworld_*"))) == 1
    assert_whole(project, [])
    assert any("starting run" in line for line in again.log()), "what the job said before is in the new run's log"


def test_job_that_ended_while_nobody_watched_is_not_run_again(project: SlurmProject) -> None:
    orchestrator = project.start(*project.materialize_args("trajectory_run"))
    wait_for(lambda: project.records("collect") and project.records("collect")[0]["attempts"][0].get("job_id"))
    orchestrator.kill()
    orchestrator.wait()
    wait_for(lambda: [run for run in project.manifests("collect") if run.status == "done"], 120)
    manifest = Materialization(project).done()
    (record,) = project.records("collect")
    assert len(record["attempts"]) == 1 and record["attempts"][0]["state"] == "COMPLETED"
    assert project.sql("SELECT status FROM runs WHERE stage = 'collect'") == [{"status": "done"}]
    assert manifest.slurm_job_id == record["attempts"][0]["job_id"]


def test_interrupted_shell_leaves_the_job_alone_and_says_so(project: SlurmProject) -> None:
    orchestrator = project.start(*project.materialize_args("trajectory_run", **SOME))
    stage = project.pause_stage()
    job_id = project.records("collect")[0]["attempts"][0]["job_id"]
    orchestrator.send_signal(signal.SIGINT)
    assert orchestrator.wait(60) != 0
    assert f"scancel {job_id}" in (project.root / "out.log").read_text()
    assert project.cluster.run("squeue", "-h", "-j", job_id, "-o", "%T") == "RUNNING"
    resume(stage)
    Materialization(project, **SOME).done()
    assert_whole(project, [])


def test_lost_connection_says_nothing_about_the_job(ssh_project: SlurmProject) -> None:
    run = Materialization(ssh_project, **SOME)
    stage = ssh_project.pause_stage(run)
    cluster = ssh_project.cluster
    try:
        cluster.kill("sshd", signal.SIGKILL)
        run.says("can't reach the login node")
        resume(stage)
        wait_for(lambda: ssh_project.manifests("collect")[0].status == "done", 120)  # it ends while nobody can ask
        assert not run.ended()
    finally:
        cluster.start_sshd()
    assert run.done().status == "done"
    assert any("SLURM can be asked again" in line for line in run.log())
    assert ssh_project.records("collect")[0]["attempts"][0]["state"] == "COMPLETED"


def test_slow_accounting_is_waited_for(project: SlurmProject) -> None:
    run = Materialization(project, **SOME)
    stage = project.pause_stage(run)
    cluster = project.cluster
    try:
        cluster.kill("slurmdbd")
        resume(stage)
        wait_for(lambda: project.manifests("collect")[0].status == "done", 120)
        time.sleep(3)
        assert not run.ended()
    finally:
        cluster.start_slurmdbd()
    run.done()
    (attempt,) = project.records("collect")[0]["attempts"]
    assert attempt["state"] == "COMPLETED" and attempt["max_memory_mb"] > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": {"partition": "nosuch"}}, "Invalid partition name specified"),
        ({"defaults": {"account": "nosuch"}}, "Invalid account or account/partition combination"),
        ({"defaults": {"qos": "nosuch"}}, "Invalid qos specification"),
        ({"defaults": {"memory": "900G"}}, "Requested node configuration is not available"),
        ({"assets": {"trajectory_run": {"gpus": 1}}, "gpu": {"gpu_type": "h9"}}, "Requested node configuration"),
    ],
)
def test_what_sbatch_refuses_is_told_at_once(project: SlurmProject, change: dict[str, object], message: str) -> None:
    project.edit_profile(**change)
    began = time.monotonic()
    error = Materialization(project).error()
    assert "sbatch refused the job" in error and message in error
    assert time.monotonic() - began < 90  # at once; machines are slow at times
    assert not project.manifests("collect")


def test_unreachable_cluster_is_one_clear_line(project: SlurmProject) -> None:
    project.edit_profile(login={"host": "127.0.0.1", "port": 9, "user": "root"})
    error = Materialization(project).error()
    assert "can't reach the login node root@127.0.0.1:9" in error and "Connection refused" in error
    assert len(error.splitlines()) == 1


def test_environment_that_changed_since_it_was_deployed_is_refused(project: SlurmProject) -> None:
    python = Path(project.root / "r2v-environment" / "python.txt")
    python.write_text(python.read_text().replace(python.read_text().splitlines()[0], "3.8.1", 1))
    assert "has changed since it was deployed; run: r2v slurm deploy" in Materialization(project).error()
    python.unlink()
    (python.parent / "activate.sh").unlink()
    assert "there is no environment at" in Materialization(project).error()
