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

import pytest

from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.spec import StageContext, StageSpec
from r2v_core.training import checkpoints
from r2v_core.training.checkpoints import CHECKPOINTS, COMPLETE, LOG_NAME, last_checkpoint, read_log
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


def test_checkpoints_that_go_are_not_whole_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / CHECKPOINTS / "checkpoint-4"
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", COMPLETE):
        (folder / name).touch()
    assert last_checkpoint(folder.parent) == folder

    def killed_here(path: Path, ignore_errors: bool = False) -> None:
        (folder / "adapter_model.safetensors").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed_here)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.clear_checkpoints(tmp_path)
    assert last_checkpoint(folder.parent) is None
