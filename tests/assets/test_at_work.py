"""An asset whose run is being made by another process, through Dagster: refused, or waited for."""

from __future__ import annotations

import subprocess
import sys
import time

from r2v_core.runs.manifest import read_manifest
from tests.assets.conftest import PARTITION, Project

SLOW = ["collection.episodes_per_task=40", "collection.parallel=1"]


def test_the_run_at_work_is_named_or_its_result_is_used(project: Project) -> None:
    with project.instance() as instance:
        instance.get_runs()  # two processes at once can't make the tables of an instance
    suite = [sys.executable, "-m", "r2v_core.stages.task_suite", "--config", "configs/small.yaml"]
    subprocess.run(suite, cwd=project.root, env=project.environment, check=True, capture_output=True)
    by_hand = project.start("r2v_core.stages.collect", "--config", "configs/small.yaml", "--overrides", *SLOW)
    while not (found := list(project.root.glob("data/mrp/runs/textworld_*/trajectories.jsonl"))):
        assert by_hand.poll() is None, (project.root / "out.log").read_text()
        time.sleep(0.05)
    run = found[0].parent
    waiting = subprocess.Popen(
        project.command(*project.materialize_args("trajectory_run", overrides=SLOW, wait=True)),
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    refused = project.materialize("trajectory_run", overrides=SLOW)
    told = refused.stdout + refused.stderr
    assert refused.returncode != 0 and f"run {run.name} is making this already" in told and "wait: true" in told
    assert by_hand.wait() == 0
    said, _ = waiting.communicate()
    assert waiting.returncode == 0, said
    (event,) = project.materializations("trajectory_run")
    assert event.partition == PARTITION and event.metadata["run_id"].value == run.name
    assert read_manifest(run).status == "done"
    assert [path.parent for path in project.root.glob("data/mrp/runs/textworld_*/run_manifest.json")] == [run]
