"""A disk that is full when a checkpoint is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r2v_core.runs.spec import StageContext, StageSpec

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("size", [200_000, 1_000_000])
def test_one_line_and_a_partial_run(
    context: Callable[..., StageContext], planned: Callable[[StageContext], StageSpec], tmp_path: Path, size: int
) -> None:
    spec = planned(context("train_bc", name="full", bc={"max_steps": 40, "batch_size": 8, "save_steps": 5}))
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json())
    Path(spec.run_dir).mkdir(parents=True, exist_ok=True)
    box = ["bwrap", "--dev-bind", "/", "/", "--size", str(size), "--tmpfs", spec.run_dir, "--", "sh", "-c"]
    script = f"{sys.executable} -m r2v_core.stages.train_bc --spec {path}; echo $? >&2; cat {spec.run_dir}/*.json"
    done = subprocess.run(
        [*box, script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    error, status = [line for line in done.stderr.splitlines() if line and not line.startswith("[")]
    assert status == "2" and error.startswith("error: ") and "No space left on device; free some space" in error
    manifest = json.loads(done.stdout)
    assert manifest["status"] == "partial" and manifest["error"] == error.removeprefix("error: ")
