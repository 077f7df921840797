"""Stages of one run that do not depend on each other are jobs of the cluster at the same time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from r2v_core.partition import Partition
from r2v_core.stages.experiments import partition_config
from tests.assets.conftest import PARTITION
from tests.serving.conftest import stuck_router
from tests.slurm.conftest import SlurmProject, told, wait_for
from tests.slurm.test_cli import r2v
from tests.stages.stand_ins import stand_in_for_all

CONFIG = """
defaults: [small]
slm: {engine: scripted, engine_options: {otherwise: [look, inventory]}}
agent: {verifier: false}
evaluation: {methods: [r2v, slm_only], sweep: []}
"""
EVALUATIONS = ["evaluation_clean", "evaluation_noisy"]


def queue(project: SlurmProject) -> list[str]:
    return project.cluster.run("squeue", "-h", "-o", "%T").split()


def from_a_shell(project: SlurmProject) -> None:
    """As *Materialize* in the UI: one run of both assets."""
    shell = project.start(*project.materialize_args(",".join(EVALUATIONS), config="configs/scripted.yaml"))
    wait_for(lambda: queue(project) == ["PENDING"] * 2 or shell.poll() is not None, 120, "two jobs in the queue")
    assert shell.poll() is None, (project.root / "out.log").read_text()[-4000:]
    stages_may_start(project)
    assert shell.wait(300) == 0, (project.root / "out.log").read_text()[-4000:]


def by_an_orchestrator(project: SlurmProject) -> None:
    """``r2v slurm run``: a run of each asset, from a job of its own."""
    chosen = [word for asset in EVALUATIONS for word in ("--asset", asset)]
    done = r2v(project, "run", "--partition", PARTITION, "--config", "configs/scripted.yaml", *chosen)
    assert done.returncode == 0, told(done)
    wait_for(lambda: sorted(queue(project)) == ["PENDING", "PENDING", "RUNNING"], 120, "two jobs in the queue")
    stages_may_start(project)
    wait_for(lambda: not queue(project), 300, "the end")
    (log,) = (project.root / "data/orchestrators").glob("*.log")
    text = log.read_text()
    assert "[1/2] evaluation_clean · " in text and "[2/2] evaluation_noisy · " in text, text
    assert "2 of 2 assets made, the others were up to date" in text, text


def stages_may_start(project: SlurmProject) -> None:
    project.cluster.run("scontrol", "update", "PartitionName=all", "State=UP")


@pytest.mark.parametrize("launch", [from_a_shell, by_an_orchestrator])
def test_both_evaluations_are_in_the_queue_together_and_run_together(
    project: SlurmProject, launch: Callable[[SlurmProject], None]
) -> None:
    config = project.root / "configs/scripted.yaml"
    config.write_text(CONFIG)
    project.edit_profile(cpu={"partition": "all"}, orchestrator={"partition": "cpu"})
    loaded = partition_config(Partition.parse(PARTITION), config, (), project.root)
    stand_in_for_all(project.root, loaded, PARTITION, stuck_router())
    run = project.cluster.run
    run("scontrol", "update", "PartitionName=all", "State=DOWN")  # no stage starts before both are there
    try:
        launch(project)
    finally:
        stages_may_start(project)
    stages = ("evaluate_clean", "evaluate_noisy")
    jobs = [record["attempts"][0]["job_id"] for stage in stages for record in project.records(stage)]
    lines = run("sacct", "-nXP", "-j", ",".join(jobs), "-o", "State,Start,End").splitlines()
    states, *times = zip(*(line.split("|") for line in lines), strict=True)
    starts, ends = ([datetime.fromisoformat(time) for time in row] for row in times)
    assert states == ("COMPLETED",) * 2 and max(starts) < min(ends)
    assert all(project.materializations(asset) for asset in EVALUATIONS)
