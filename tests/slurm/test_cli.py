"""``r2v slurm …`` as a user types it, against the real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest

from r2v_assets.slurm import doctor
from r2v_assets.slurm.doctor import Doctor
from r2v_assets.slurm.gpus import gpus_seen
from r2v_assets.slurm.profile import load_profile
from r2v_core.errors import R2VError
from tests.assets.conftest import PARTITION
from tests.slurm.conftest import Materialization, SlurmProject, told


def r2v(project: SlurmProject, *args: str) -> subprocess.CompletedProcess[str]:
    return project.run("r2v_assets.cli", "slurm", *args)


def test_doctor_finds_everything_in_order(ssh_project: SlurmProject) -> None:
    done = r2v(ssh_project, "doctor")
    assert done.returncode == 0, told(done)
    names = ["login node", "SLURM commands", "accounting", "what assets ask for", "shared folder", "environment"]
    names += ["disk space", "clock", "a job in partition cpu", "a job in partition gpu"]
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == [f"✓ {name}" for name in names]
    assert "has no GPU device, so torch.cuda was not tried" in done.stdout.splitlines()[-2]
    assert not list(ssh_project.root.glob(".r2v-doctor*"))


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"cpu": {"partition": "nosuch"}}, ("partition 'nosuch'", "the cluster has all, cpu, gpu, urgent")),
        ({"gpu": {"gpu_type": "h9"}}, ("verifier: ", "GPUs of type h9", "gpu:a100")),
        ({"defaults": {"account": "nosuch"}}, ("account 'nosuch'", "sacctmgr")),
        ({"login": {"host": "127.0.0.1", "port": 9}}, ("✗ login node: can't reach", "the checks below need this one")),
        ({"shared": "/proc/r2v"}, ("✗ shared folder: /proc/r2v can't be written here",)),
    ],
)  # fmt: skip
def test_doctor_says_what_is_wrong_and_how_to_fix_it(
    project: SlurmProject, change: dict[str, object], messages: tuple[str, ...]
) -> None:
    project.edit_profile(**change)
    done = r2v(project, "doctor", "--timeout", "60")
    assert done.returncode == 2
    assert all(message in done.stdout for message in messages), told(done)


def test_doctor_finds_locks_that_do_not_reach_other_machines(
    project: SlurmProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Doctor(load_profile("test", project.root), project.root)
    assert "sees the project and its locks" in found.check_job("collect")
    monkeypatch.setattr(doctor, "FileLock", lambda path: nullcontext())  # as where a lock stays on its machine
    with pytest.raises(R2VError, match=r"node \S+ does not see that .* is locked here \(free\): two jobs could"):
        found.check_job("collect")


def test_render_prints_the_job_and_submits_nothing(project: SlurmProject) -> None:
    done = r2v(project, "render", "verifier", "--partition", "textworld:expert|3")
    assert done.returncode == 0, told(done)
    assert "#SBATCH --job-name=r2v.verifier.textworld:expert.3" in done.stdout
    assert "#SBATCH --gres=gpu:a100:1" in done.stdout and "-m r2v_core.stages.train_verifier" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0
    assert project.cluster.run("squeue", "-h") == ""
    wrong = r2v(project, "render", "verifer")
    assert wrong.returncode == 2 and "Did you mean 'verifier'" in wrong.stderr


def test_status_shows_job_asset_partition_and_log(project: SlurmProject) -> None:
    run = Materialization(project, overrides=["collection.episodes_per_task=20"])
    stage = project.pause_stage(run)
    job_id = project.records("collect")[0]["attempts"][0]["job_id"]
    done = r2v(project, "status")
    os.kill(stage, 18)
    words = done.stdout.split()
    assert done.returncode == 0, told(done)
    assert {job_id, "trajectory_run", "running", "cpu1"} <= set(words) and "textworld:expert|1" in done.stdout
    run.done()


def test_cancel_takes_the_jobs_that_are_named(project: SlurmProject) -> None:
    project.edit_profile(defaults={"extra": ["--hold"]})
    run = Materialization(project)
    run.says("is pending (JobHeldUser)")
    for others in (("--partition", "textworld:expert|2"), ("--all", "--asset", "bc_policy")):
        assert r2v(project, "cancel", *others).stdout == "no such job is waiting or running\n"
    done = r2v(project, "cancel", "--partition", PARTITION)
    job_id = project.records("collect")[0]["attempts"][0]["job_id"]
    assert done.stdout == f"cancelling job {job_id}: trajectory_run of {PARTITION}, pending\n", told(done)
    assert f"SLURM job {job_id} was cancelled from outside" in run.error()
    without = r2v(project, "cancel")
    assert without.returncode == 2 and "which jobs? give --partition" in without.stderr


@pytest.mark.parametrize("kind", ["project", "ssh_project"])
def test_a_command_runs_as_an_assets_job_would(kind: str, request: pytest.FixtureRequest) -> None:
    project: SlurmProject = request.getfixturevalue(kind)
    words = ("sh", "-c", 'echo "$SLURM_JOB_NAME on $SLURM_JOB_PARTITION in $PWD: $(command -v python3)"; exit 3')
    done = r2v(project, "shell", "verifier", "--", *words)
    assert done.returncode == 3, told(done)
    assert done.stdout == f"r2v.shell.verifier on gpu in {project.root}: {sys.prefix}/bin/python3\n"
    local = r2v(project, "shell", "report")
    assert local.returncode == 2 and "runs beside Dagster (where: local)" in local.stderr


def test_what_torch_sees_of_the_gpus() -> None:
    assert gpus_seen("-", "n1", 0) == ""
    assert gpus_seen("0 0 cpu", "n1", 1) == "; n1 has no GPU device, so torch.cuda was not tried"
    assert gpus_seen("8 2 12.6", "n1", 2) == ", torch sees 2 GPUs (CUDA 12.6)"
    for line, why in (
        ("8 0 cpu", "is a build for CPUs. Install one"),
        ("8 1 12.6", "is built for CUDA 12.6: does the node's driver"),
    ):
        with pytest.raises(R2VError, match=r"of the 2 GPUs that SLURM gave the job on n1; .*" + why):
            gpus_seen(line, "n1", 2)


def test_a_wrong_profile_is_one_message(project: SlurmProject) -> None:
    project.edit_profile(pol_s=3)
    done = r2v(project, "status")
    assert done.returncode == 2 and "pol_s: no such key. Did you mean 'poll_s'?" in done.stderr
    assert "Traceback" not in told(done)


def test_a_wrong_switch_is_one_message(project: SlurmProject) -> None:
    environment = {**project.environment, "R2V_COMPUTE": "slrum"}
    command = project.command(*project.materialize_args("task_suite"))
    done = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0 and "R2V_COMPUTE=slrum" in told(done) and "Did you mean 'slurm'" in told(done)


def test_deploy_without_the_environment_says_how_to_make_it(project: SlurmProject) -> None:
    project.edit_profile(environment={"venv": "/nosuch/venv"})
    done = r2v(project, "deploy")
    assert done.returncode == 2 and "has no /nosuch/venv/bin/python" in done.stderr and "--install" in done.stderr
