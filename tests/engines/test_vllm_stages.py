"""Stages that sample through a real vLLM on the CPU: one of their own that dies, then one at an address."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.vllm import WHERE
from r2v_core.errors import TransientError
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.stages.cli import main
from r2v_core.stages.table import STAGES
from r2v_core.training.preferences import CandidateRow
from r2v_core.trajectory import Episode
from tests.engines.vllm_servers import ROOT, real_environment, serve, small_llama
from tests.stages.fixed_output_model import model_that_says

CONFIG = """
defaults: [humaneval/mrp]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny}}
benchmark: {{max_steps: 4, splits: {{train: 2, router: 2, validation: 2, test: 1}}}}
slm: {{model: {model}, dtype: float32, max_prompt_tokens: 300, max_action_tokens: 8, engine: vllm}}
collection: {{episodes_per_task: 2, explore_all_episodes: 2}}
perturbations:
  seeds: {{train: 1, router: 12, validation: 12, test: 2}}
  prompt_injection: {{override: 0.3}}
training:
  bc: {{max_steps: 2, batch_size: 2}}
  verifier: {{max_steps: 2, batch_size: 2, layers: 1}}
  dpo: {{max_steps: 1, batch_size: 2, consistency_batch: 1}}
  router: {{epochs: 3, cvar_epsilon: 0.6}}
candidates: {{k: 2, max_states: 8, batch_size: 2}}
router_features: {{takeover_prob: 0.5}}
evaluation: {{bootstrap: 20}}
"""
NAMES = list(STAGES)
ARGUMENTS = ["--config", "configs/tiny.yaml", "--partition", "humaneval:expert|1"]


@pytest.fixture(scope="module")
def submitter(tmp_path_factory: pytest.TempPathFactory, real_slm: SLMConfig, model_cache: Path) -> Path:
    """A model that says "submit" most of the time: wrong at first, right after help."""
    small = small_llama(real_slm, model_cache, tmp_path_factory.mktemp("models") / "small")
    return model_that_says("submit", small, tmp_path_factory.mktemp("models") / "submitter")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, submitter: Path) -> Iterator[Path]:
    """A project in which everything that comes before candidates has been made."""
    root = tmp_path_factory.mktemp("vllm_stages")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(model=submitter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.setenv(WHERE, str(real_environment()))
        patch.chdir(root)
        for stage in NAMES[: NAMES.index("candidates")]:
            assert main(stage, ARGUMENTS) == 0, stage
        yield root


def manifest_of(project: Path, stage: str) -> tuple[Path, RunManifest]:
    (found,) = (
        path.parent for path in project.glob("*/*/*/run_manifest.json") if read_manifest(path.parent).stage == stage
    )
    return found, read_manifest(found)


def kill_server_of(stage: subprocess.Popen[str], project: Path) -> None:
    """Kill the server once the stage has noted what the policy said first."""
    while not list(project.glob("*/*/*/unfinished/*.proposals.jsonl")):
        assert stage.poll() is None, stage.communicate()
        time.sleep(0.02)
    for child in psutil.Process(stage.pid).children(recursive=True):
        if "api_server" in " ".join(child.cmdline()) and "keeper" not in " ".join(child.cmdline()):
            child.kill()
            return
    raise AssertionError("no server of the stage's own")


def test_stages_go_on_from_where_their_server_died_and_take_one_at_an_address(
    project: Path, submitter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "r2v_core.stages.candidates", *ARGUMENTS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    stage = subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE, text=True)
    kill_server_of(stage, project)
    told = stage.communicate(timeout=120)[1]
    folder, manifest = manifest_of(project, "candidates")
    assert stage.returncode == TransientError.STATUS and manifest.status == "partial", told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "the vLLM server ended" in line and str(folder / "logs" / "vllm.log") in line

    server = serve(str(submitter), tmp_path / "vllm.log")
    monkeypatch.setenv(WHERE, server.address)
    monkeypatch.setenv("VLLM_API_KEY", server.key)
    try:
        for name in ("candidates", "train_dpo", "router_features", "train_router", "evaluate_noisy"):
            assert main(name, ARGUMENTS) == 0, name
    finally:
        server.stop()
    resumed, manifest = manifest_of(project, "candidates")  # where a server is makes no other run of it
    assert resumed == folder and manifest.status == "done" and manifest.config["slm"]["engine"] == "vllm"
    rows = list(JsonlStore(folder / "candidates.jsonl", CandidateRow))
    assert len(rows) == 8 and all(c.text == "submit" or c.logprob < -0.5 for row in rows for c in row.candidates)
    assert sum(c.text == "submit" for row in rows for c in row.candidates) > 8
    folder, manifest = manifest_of(project, "evaluate_noisy")
    episodes = list(read_parquet(folder / "trajectories.parquet", Episode))
    assert manifest.status == "done" and episodes
    assert {step.actor for episode in episodes for step in episode.steps} == {"slm", "teacher"}
