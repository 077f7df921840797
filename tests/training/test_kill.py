"""kill -9 of a training process, then the same command again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.runs.spec import StageContext, StageSpec
from r2v_core.stages import runner
from r2v_core.stages.runner import execute
from r2v_core.training.checkpoints import CHECKPOINTS, LOG_NAME, last_checkpoint, read_log
from tests.stages.killing import KILLS, run_with_kills_anywhere

ROOT = Path(__file__).parents[2]


def _start(spec: StageSpec, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / f"{spec.run_id}.json"
    path.write_text(spec.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "r2v_core.stages.train_bc", "--spec", str(path)]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)


def test_kill_minus_nine_loses_nothing(
    context: Callable[..., StageContext], planned: Callable[[StageContext], StageSpec], tmp_path: Path
) -> None:
    bc = {"max_steps": 40, "batch_size": 8, "save_steps": 5}
    specs = [planned(context("train_bc", name=name, bc=bc)) for name in ("whole", "killed")]
    whole = _start(specs[0], tmp_path)
    assert whole.wait() == 0, whole.stderr.read() if whole.stderr else ""
    killed, run_dir = _start(specs[1], tmp_path), Path(specs[1].run_dir)
    log = run_dir / LOG_NAME
    while not (log.exists() and len(read_log(log)) >= 7):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert read_manifest(run_dir).status == "running"
    assert last_checkpoint(run_dir / CHECKPOINTS) is not None
    again = _start(specs[1].model_copy(update={"resumed": True}), tmp_path)
    assert again.stderr is not None
    said = again.stderr.read().decode()
    assert again.wait() == 0, said
    assert "resuming from checkpoint-" in said
    manifests = [read_manifest(Path(spec.run_dir)) for spec in specs]
    assert manifests[0].status == manifests[1].status == "done"
    assert manifests[0].digest == manifests[1].digest
    logs = [read_log(Path(spec.run_dir) / LOG_NAME) for spec in specs]
    assert [line["step"] for line in logs[1]] == list(range(1, 41))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("stage", ["train_verifier", "train_dpo"])
def test_a_training_killed_anywhere_ends_as_one_that_ran_through(
    context: Callable[..., StageContext],
    dpo_context: Callable[..., StageContext],
    planned: Callable[[StageContext], StageSpec],
    tmp_path: Path,
    stage: str,
) -> None:
    steps = KILLS + 1  # a step is some twenty changes of files, so most attempts come one step further at most

    def make(name: str) -> StageContext:
        if stage == "train_dpo":
            return dpo_context(name, max_steps=steps, save_steps=1)
        return context(stage, name=name, verifier={"max_steps": steps, "batch_size": 4, "save_steps": 1, "layers": 1})

    specs = [planned(make(name)) for name in ("whole", "killed")]
    arguments = []
    for spec in specs:
        path = tmp_path / f"{spec.run_id}.json"
        path.write_text(spec.model_dump_json())
        arguments.append([stage, "--spec", str(path)])
    draw = random.Random(stage)
    assert run_with_kills_anywhere(tmp_path, arguments[0], draw, 1, 0.0, attempts=0) == 0
    kills = run_with_kills_anywhere(tmp_path, arguments[1], draw, 40, 1.0)
    print(f"\n{stage}: {kills} kills")
    assert kills >= 1
    whole, killed = (read_manifest(Path(spec.run_dir)) for spec in specs)
    assert (killed.status, killed.digest, killed.counts) == ("done", whole.digest, whole.counts)
    logs = [read_log(Path(spec.run_dir) / LOG_NAME) for spec in specs]
    assert len(logs[0]) == steps and logs[0] == logs[1]
    assert not (Path(specs[1].run_dir) / CHECKPOINTS).exists()


def test_a_kill_before_the_last_manifest_costs_no_training(
    context: Callable[..., StageContext],
    planned: Callable[[StageContext], StageSpec],
    report: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = planned(context("train_bc", bc={"max_steps": 3, "batch_size": 4}))
    write = runner.write_manifest

    def killed_here(manifest: RunManifest, run_dir: Path) -> None:
        if manifest.status != "running":
            raise MemoryError
        write(manifest, run_dir)

    with monkeypatch.context() as patched:
        patched.setattr(runner, "write_manifest", killed_here)
        with pytest.raises(MemoryError):
            execute(spec, report)
    run_dir = Path(spec.run_dir)
    assert read_manifest(run_dir).status == "running"
    assert last_checkpoint(run_dir / CHECKPOINTS) == run_dir / CHECKPOINTS / "checkpoint-3"
    assert execute(spec.model_copy(update={"resumed": True}), report).status == "done"
    assert "resuming from checkpoint-3 of 3 steps" in report.lines
    assert not (run_dir / CHECKPOINTS).exists()
