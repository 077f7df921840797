"""A training that is asked to end saves what it has; the rerun goes on from there, and ends as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState

from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.processes import launch_arguments
from r2v_core.runs.spec import StageContext, StageSpec
from r2v_core.runs.stopping import Stopped
from r2v_core.stages.runner import execute, exit_with
from r2v_core.training import callbacks
from r2v_core.training.checkpoints import CHECKPOINTS, LOG_NAME, last_checkpoint, read_log

ROOT = Path(__file__).parents[2]
Context = Callable[..., StageContext]
Planned = Callable[[StageContext], StageSpec]
QUICK = {"max_steps": 6, "batch_size": 4, "learning_rate": 5e-3}
"""The first regular checkpoint would be that of step 20."""


def signalled(monkeypatch: pytest.MonkeyPatch, how: signal.Signals, step: int) -> None:
    """Send this process a signal while a step is being logged, after its end."""
    original = callbacks.TrainingLog.on_log

    def on_log(self: Any, args: Any, state: TrainerState, control: Any, logs: Any = None, **rest: Any) -> None:
        original(self, args, state, control, logs, **rest)
        if state.global_step == step and logs and "loss" in logs:
            os.kill(os.getpid(), how)

    monkeypatch.setattr(callbacks.TrainingLog, "on_log", on_log)


@pytest.mark.parametrize(
    ("stage", "section", "how", "at", "saved"),
    [
        ("train_bc", {"bc": QUICK}, signal.SIGTERM, 2, 3),
        ("train_bc", {"bc": {**QUICK, "grad_accumulation": 2}}, signal.SIGHUP, 5, 6),  # nothing is left to train
        ("train_verifier", {"verifier": {**QUICK, "layers": 1, "validation_share": 0.3}}, signal.SIGINT, 1, 2),
    ],
)
def test_a_stopped_training_goes_on_from_that_very_step(
    stage: str,
    section: dict[str, Any],
    how: signal.Signals,
    at: int,
    saved: int,
    context: Context,
    planned: Planned,
    report: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = execute(planned(context(stage, name="whole", **section)), report)
    spec = planned(context(stage, name="stopped", **section))
    with monkeypatch.context() as patched:
        signalled(patched, how, at)
        with pytest.raises(Stopped) as caught:
            execute(spec, report)
    assert exit_with(caught.value) == 128 + how
    run_dir = Path(spec.run_dir)
    stopped = read_manifest(run_dir)
    assert stopped.status == "partial" and stopped.error == f"stopped by {how.name}, saved at step {saved} of 6"
    assert report.lines[-1].startswith(str(stopped.error)) and "the same command" in report.lines[-1]
    checkpoint = last_checkpoint(run_dir / CHECKPOINTS)
    assert checkpoint is not None and checkpoint.name == f"checkpoint-{saved}"
    again = execute(spec.model_copy(update={"resumed": True}), report)
    assert f"resuming from checkpoint-{saved} of 6 steps" in report.lines
    assert again.status == "done" and again.digest == whole.digest and again.counts == whole.counts
    assert read_log(run_dir / LOG_NAME) == read_log(run_dir.parent / "whole" / LOG_NAME)


def start(arguments: tuple[str, ...], folder: Path) -> subprocess.Popen[str]:
    """A command in a session of its own, as a terminal starts one."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until_step(process: subprocess.Popen[str], run_dir: Path, step: int) -> None:
    log = run_dir / LOG_NAME
    while not (log.exists() and len(read_log(log)) >= step):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.02)


def test_ctrl_c_in_a_terminal_is_one_line(context: Context, planned: Planned, tmp_path: Path) -> None:
    spec = planned(context("train_bc", bc={"max_steps": 2000, "batch_size": 4, "save_steps": 2000}))
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    process = start(("r2v_core.stages.train_bc", "--spec", str(tmp_path / "spec.json")), tmp_path)
    assert process.stderr is not None
    until_step(process, Path(spec.run_dir), 3)
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == 130, said
    last = said.splitlines()[-1]
    checkpoint = last_checkpoint(Path(spec.run_dir) / CHECKPOINTS)
    assert checkpoint is not None and "Traceback" not in said
    step = int(checkpoint.name.rpartition("-")[2])
    assert last.startswith(
        f"[train_bc] stopped by SIGINT, saved at step {step} of 2000; what is done is kept in run, and the"
    )
    assert read_manifest(Path(spec.run_dir)).status == "partial"


LOADING = "open('loading', 'w').close()\nimport time\ntime.sleep(600)\n"


def interrupted_while_loading(library: str, command: tuple[str, ...], folder: Path) -> str:
    """What a stage says that gets Ctrl-C while it loads a library."""
    (folder / f"{library}.py").write_text(LOADING)  # -m looks in the present folder first
    with start(command, folder) as process:
        while not (folder / "loading").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 130, said
    return str(said)


def test_ctrl_c_before_anything_is_planned_is_one_line(tmp_path: Path) -> None:
    said = interrupted_while_loading("omegaconf", ("r2v_core.stages.train_bc",), tmp_path)
    assert said == "stopped by SIGINT; nothing had begun yet\n"


def test_ctrl_c_while_libraries_load_leaves_a_run_to_take_up(
    context: Context, planned: Planned, tmp_path: Path
) -> None:
    spec = planned(context("train_bc", bc={"max_steps": 1}))
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    said = interrupted_while_loading("torch", ("r2v_core.stages.train_bc", "--spec", "spec.json"), tmp_path)
    first, last = said.splitlines()
    assert first.startswith("[train_bc] starting run") and read_manifest(Path(spec.run_dir)).status == "partial"
    assert last == ("[train_bc] stopped by SIGINT; what is done is kept in run, and the same command resumes it")


def test_two_processes_end_after_the_same_step_whichever_was_asked(
    context: Context, planned: Planned, tmp_path: Path
) -> None:
    spec = planned(context("train_bc", bc={"max_steps": 2000, "batch_size": 2, "save_steps": 2000}))
    path, run_dir = tmp_path / "spec.json", Path(spec.run_dir)
    path.write_text(spec.model_dump_json())
    process = start(launch_arguments(("r2v_core.stages.train_bc", "--spec", str(path)), 2), tmp_path)
    until_step(process, run_dir, 2)
    (helper,) = [pid for pid, rank in ranks(str(path)).items() if rank == "1"]
    os.kill(helper, signal.SIGTERM)
    said = process.stderr.read() if process.stderr else ""
    assert process.wait() != 0
    manifest = read_manifest(run_dir)
    checkpoint = last_checkpoint(run_dir / CHECKPOINTS)
    assert checkpoint is not None, said
    step = int(checkpoint.name.rpartition("-")[2])
    assert (manifest.status, manifest.error) == ("partial", f"stopped by SIGTERM, saved at step {step} of 2000"), said
    assert {file.name for file in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == step
    assert not ranks(str(path))


def ranks(argument: str) -> dict[int, str]:
    """Process → its rank, for those that were started with an argument."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if argument.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                variables = (folder / "environ").read_bytes().split(b"\0")
                found |= {int(folder.name): v[5:].decode() for v in variables if v.startswith(b"RANK=")}
        except OSError:
            continue
    return found
