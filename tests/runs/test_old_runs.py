"""Runs of commit 5268287, kept as a fixture: every later version reads them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.registry import DataRegistry
from r2v_core.registry.doctor import mark_partial
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, begun_by_older, read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.trajectory import Episode, episodes_digest

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests/fixtures/runs_5268287/project.tar.xz"
TODAY = """
defaults: [mrp]
name: today
paths: {data: data, outputs: outputs, results: results/today, cache: CACHE}
benchmark:
  max_steps: 8
  splits: {train: 3, router: 2, validation: 2, test: 2}
  options:
    goals: [detailed]
    mix: [{family: treasure_hunter, level: 4}]
perturbations:
  seeds: {train: 1, router: 10, validation: 8, test: 1}
slm: {max_action_tokens: 6, max_prompt_tokens: 160}
training:
  lora: {r: 1, alpha: 2, target_modules: [q_proj]}
  bc: {max_steps: 1, batch_size: 1}
  verifier: {max_steps: 1, batch_size: 2, layers: 2}
  dpo: {max_steps: 1, batch_size: 1, consistency_batch: 1}
  router: {hidden: [16], epochs: 5, cvar_epsilon: 0.6}
candidates: {k: 4, max_states: 8}
evaluation: {bootstrap: 50, sweep: [0.3]}
"""
Stage = Callable[..., subprocess.CompletedProcess[str]]
COLLECTED = ["textworld_env_expert_20261126T114257", "textworld_env_expert_20261126T114622"]
KILLED = "textworld_env_expert_20261126T114628"
MERGED = "merge_textworld_env_expert_20261126T114720"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def project(unpacked: Path, tmp_path: Path, model_cache: Path) -> Path:
    """The old project with today's configs."""
    root = tmp_path / "project"
    for part in ("data", "outputs"):
        shutil.copytree(unpacked / part, root / part)
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/today.yaml").write_text(TODAY.replace("CACHE", str(model_cache)))
    return root


@pytest.fixture
def stage(project: Path) -> Stage:
    """Run a stage as a user would."""

    def run(name: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", f"r2v_core.stages.{name}", "--config", "configs/today.yaml", *arguments],
            cwd=project,
            env={**os.environ, "R2V_PROJECT": str(project), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        return done

    return run


def run_dir(project: Path, stage: str) -> Path:
    """The old run of a stage with seed 1."""
    (found,) = [
        path.parent
        for path in project.glob(f"*/*/*/{MANIFEST_NAME}")
        if (manifest := read_manifest(path.parent)).stage == stage and manifest.seed == 1
    ]
    return found


def newest(project: Path, stage: str) -> RunManifest:
    runs = [read_manifest(path.parent) for path in (project / "outputs" / stage).glob(f"*/{MANIFEST_NAME}")]
    return max(runs, key=lambda manifest: manifest.created_at)


def test_every_old_run_is_registered(project: Path) -> None:
    report = DataRegistry(project).rebuild()
    assert (report.n_runs, report.n_episodes, report.problems) == (20, 133, [])  # as that commit counted them


def test_the_old_registry_is_migrated(project: Path) -> None:
    registry = DataRegistry(project)
    assert len(registry.query()) == 20
    assert registry.summary()["unique_episodes"] == 79
    assert registry.get_run(COLLECTED[0]) == read_manifest(project / "data/runs" / COLLECTED[0])
    assert {run.run_id for run in registry.query(stage="collect", variant="")} == {*COLLECTED, KILLED}
    registry.sync()
    before = registry.sql("SELECT * FROM runs ORDER BY run_id").astype(str).to_dict("records")
    registry.rebuild()
    assert registry.sql("SELECT * FROM runs ORDER BY run_id").astype(str).to_dict("records") == before


def test_old_runs_are_whole(project: Path) -> None:
    registry = DataRegistry(project)
    registry.rebuild()
    for file in (project / "data/runs" / KILLED).iterdir():
        os.utime(file, (0, 0))  # still for long: its machine is another one
    kinds = {(finding.kind, finding.run_id) for finding in registry.doctor()}
    assert kinds == {("dead_run", KILLED)}


@pytest.mark.parametrize("name", ["collect", "perturb", "evaluate_clean"])
def test_old_episodes_have_the_digest_of_their_manifest(project: Path, name: str) -> None:
    directory = run_dir(project, name)
    manifest = read_manifest(directory)
    for store in (
        JsonlStore(directory / "trajectories.jsonl", Episode),
        read_parquet(directory / "trajectories.parquet", Episode),
    ):
        episodes = list(store)
        assert len(episodes) == manifest.n_episodes > 0
        assert episodes_digest(episodes) == manifest.digest


def test_old_runs_are_merged(project: Path, tmp_path: Path) -> None:
    registry = DataRegistry(project)
    for name in ("merged.jsonl", "merged.parquet"):
        merged = registry.merge_runs(COLLECTED, tmp_path / name)
        assert merged.kept == dict(zip(COLLECTED, (9, 8), strict=True))
        assert len(list(merged.iter_episodes())) == 17
    assert registry.merge_to_run(COLLECTED).digest == registry.get_run(MERGED).digest
    assert len(list(registry.iter_episodes([MERGED]))) == 17


def test_old_runs_are_imported_into_another_project(project: Path, tmp_path: Path) -> None:
    (project / "data/registry.json").write_text(json.dumps({"runs": [{"run_id": run_id} for run_id in COLLECTED]}))
    other = DataRegistry(tmp_path / "other")
    report = other.import_legacy(project / "data/registry.json")
    assert report.problems == [] and {run_id: report.episodes[run_id] for run_id in COLLECTED} == dict.fromkeys(
        COLLECTED, 9
    )
    assert len(list(other.iter_episodes(COLLECTED))) == 17


def test_an_old_unfinished_run_is_refused_and_can_be_merged(project: Path, stage: Stage) -> None:
    directory = project / "data/runs" / KILLED
    marked = mark_partial(directory)
    assert marked.status == "partial" and begun_by_older(directory)
    refused = stage("collect", "--partition", "textworld:expert|3", "--run-id", KILLED, status=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {directory / MANIFEST_NAME}: an unfinished run of version 1, this program writes")
    registry = DataRegistry(project)
    registry.rebuild()
    assert 0 < len(list(registry.iter_episodes([KILLED]))) < 9


def test_tables_and_report_are_made_from_old_evaluations(project: Path, stage: Stage) -> None:
    inputs = [f"{c}={run_dir(project, f'evaluate_{c}')}" for c in ("clean", "noisy")]
    stage("result_tables", "--input", *inputs, f"router={run_dir(project, 'train_router')}")
    tables = newest(project, "result_tables")
    assert tables.counts["methods"] >= 8 and tables.n_episodes > 0
    stage("report", "--input", f"tables={project / tables.output_dir}", *inputs)
    page = project / newest(project, "report").output_dir / "report.html"
    assert "r2v" in page.read_text()


def test_old_tables_are_set_side_by_side(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2V_PROJECT", str(project))
    found = CliRunner().invoke(app, ["compare", "textworld:expert", "--json"], catch_exceptions=False)
    table = pd.read_csv(run_dir(project, "result_tables") / "structured_results/main_table.csv")
    assert found.exit_code == 0
    rows = json.loads(found.stdout)["rows"]
    assert len(rows) == len(table) == 16
    for row, expected in zip(rows, table.to_dict("records"), strict=True):
        assert (row["condition"], row["method"]) == (expected["condition"], expected["method"])
        for name in ("success_rate", "avg_cost", "llm_call_rate"):
            assert row[f"textworld:expert {name}"] == pytest.approx(expected[name])


def test_the_router_is_trained_from_old_features(project: Path, stage: Stage) -> None:
    inputs = {"features": "router_features", "tasks": "task_suite", "policy": "train_dpo", "verifier": "train_verifier"}
    given = [f"{role}={run_dir(project, name)}" for role, name in inputs.items()]
    stage("train_router", "--overrides", "training.router.calibrate=logged", "--input", *given)
    assert newest(project, "train_router").counts["rows_router"] > 0


@pytest.mark.parametrize(("name", "inputs"), [
    ("train_bc", {"trajectories": "collect", "perturbed": "perturb"}),
    ("train_verifier", {"trajectories": "collect", "perturbed": "perturb"}),
    ("train_dpo", {"candidates": "candidates", "perturbed": "perturb", "policy": "train_bc"}),
])  # fmt: skip
def test_training_takes_old_runs(project: Path, stage: Stage, name: str, inputs: dict[str, str]) -> None:
    before = newest(project, name)
    stage(name, "--notes", "again", "--overrides", f"training.{name.removeprefix('train_')}.learning_rate=1e-4",
          "--input", *(f"{role}={run_dir(project, upstream)}" for role, upstream in inputs.items()))  # fmt: skip
    made = newest(project, name)
    assert made.run_id != before.run_id and (made.status, made.schema_version) == ("done", 3)
    assert {item.role: item.run_id for item in made.inputs} == {
        role: run_dir(project, upstream).name for role, upstream in inputs.items() if upstream != name
    }
