"""Which assets of a partition may be made at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from r2v_assets.side_by_side import ready
from r2v_core.partition import Partition
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.stages.experiments import load_config, partition_config
from r2v_core.stages.table import BY_ASSET, pipeline
from tests.assets.conftest import PARTITION, REPOSITORY, Project
from tests.serving.conftest import stuck_router
from tests.stages.stand_ins import stand_in_for_all

CONFIG = """
defaults: [small]
slm: {engine: scripted, engine_options: {otherwise: [look, inventory]}}
agent: {verifier: false, parallel: 1}
perturbations: {seeds: {test: 30}}
evaluation: {methods: [r2v, slm_only], sweep: [], clean_seeds: 30}
"""
EVALUATIONS = ("evaluation_clean", "evaluation_noisy")
RUNS = "outputs/mrp/evaluate_*/*"


def test_what_waits_for_nobody_is_ready_in_the_pipelines_order() -> None:
    config = load_config("configs/mrp.yaml", (), REPOSITORY).config
    waiting = {stage.name: stage for stage in pipeline(config)}
    assert ready(waiting, (), config) == ["task_suite"]
    waves = []
    while waiting:
        waves.append(ready(waiting, (), config))
        for name in waves[-1]:
            del waiting[name]
    assert ["train_bc", "train_verifier"] in waves and ["evaluate_clean", "evaluate_noisy"] in waves
    assert waves[-2:] == [["result_tables"], ["report"]]


@pytest.mark.parametrize(
    ("running", "expected"), [((), {"evaluate_clean", "evaluate_noisy"}), (("train_router",), set())]
)
def test_what_is_under_way_is_waited_for(running: tuple[str, ...], expected: set[str]) -> None:
    config = load_config("configs/mrp.yaml", (), REPOSITORY).config
    assets = ("evaluation_clean", "evaluation_noisy", "ablation_static_threshold")
    chosen = {stage.name: stage for asset in assets for stage in [BY_ASSET[asset]]}
    assert set(ready(chosen, running, config)) == expected


def test_one_that_is_stopped_ends_all_and_begins_again_where_they_were(project: Project) -> None:
    """Two evaluations at once on this machine; the signal is the one that a cluster's time limit leads to."""
    config = project.root / "configs/scripted.yaml"
    config.write_text(CONFIG)
    loaded = partition_config(Partition.parse(PARTITION), config, (), project.root)
    stand_in_for_all(project.root, loaded, PARTITION, stuck_router())
    chosen = [word for asset in ("task_suite", *EVALUATIONS) for word in ("--asset", asset)]
    command = ("-m", "r2v_assets.slurm_run", "--partition", PARTITION, "--config", "configs/scripted.yaml", *chosen)
    environment = project.environment | {"R2V_STAGES_AT_ONCE": "2"}

    def start() -> subprocess.Popen[bytes]:
        with (project.root / "out.log").open("a") as file:
            shown = {"stdout": file, "stderr": file}
            return subprocess.Popen([sys.executable, *command], cwd=project.root, env=environment, **shown)

    def log() -> str:
        return (project.root / "out.log").read_text()

    def at_work() -> int:
        return sum(path.stat().st_size > 0 for path in project.root.glob(f"{RUNS}/trajectories.jsonl"))

    def manifests() -> list[RunManifest]:
        return [read_manifest(path.parent) for path in project.root.glob(f"{RUNS}/run_manifest.json")]

    first, end = start(), time.monotonic() + 240
    while at_work() < 2:
        assert first.poll() is None and time.monotonic() < end, log()
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143, log()
    assert log().count("materialise it again to resume") == 2, log()
    runs = manifests()
    assert [run.status for run in runs] == ["partial"] * 2
    assert start().wait(240) == 0, log()
    assert {(run.run_id, run.status) for run in manifests()} == {(run.run_id, "done") for run in runs}
    assert "2 of 3 assets made, the others were up to date" in log()
