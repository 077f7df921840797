"""HumanEval through the whole pipeline: programs as actions, and a small model that just submits."""

from __future__ import annotations

import ast
import csv
import json
import random
import shutil
from pathlib import Path

import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.perturbations.prompt_injection import FALLBACK
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.stages.cli import main
from r2v_core.stages.table import STAGES
from r2v_core.trajectory import Episode
from tests.stages.fixed_output_model import model_that_says
from tests.stages.killing import run_with_kills, run_with_kills_anywhere

ROOT = Path(__file__).parents[2]
CONFIG = """
defaults: [humaneval/mrp]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny}}
benchmark: {{max_steps: 4, splits: {{train: 2, router: 2, validation: 2, test: 1}}}}
slm: {{model: {model}, dtype: float32, max_prompt_tokens: 300, max_action_tokens: 8}}
collection: {{episodes_per_task: 2, explore_all_episodes: 2}}
perturbations:
  seeds: {{train: 1, router: 12, validation: 12, test: 2}}
  prompt_injection: {{override: 0.3}}
training:
  bc: {{max_steps: 2, batch_size: 2}}
  verifier: {{max_steps: 2, batch_size: 2, layers: 1, on_policy: {{episodes: 2, state_share: 0.5}}}}
  dpo: {{max_steps: 1, batch_size: 2, consistency_batch: 1}}
  router: {{epochs: 3, cvar_epsilon: 0.6, baselines: [entropy_router, verifier_router, random_router]}}
candidates: {{k: 2, max_states: 8}}
router_features: {{takeover_prob: 0.5}}
evaluation: {{bootstrap: 20}}
"""


@pytest.fixture(scope="module")
def submitter(tmp_path_factory: pytest.TempPathFactory, tiny_slm: SLMConfig) -> Path:
    """The small model that says "submit" most of the time: wrong at first, right after help."""
    return model_that_says("submit", tiny_slm, tmp_path_factory.mktemp("submitter") / "llama")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, submitter: Path) -> Path:
    """A project in which every stage of ``humaneval:expert|1`` has run, in this process."""
    root = tmp_path_factory.mktemp("humaneval")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(model=submitter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.chdir(root)
        for stage in STAGES:
            assert main(stage, ["--config", "configs/tiny.yaml", "--partition", "humaneval:expert|1"]) == 0, stage
    return root


def run_of(project: Path, stage: str) -> Path:
    (found,) = (
        path.parent for path in project.glob("*/*/*/run_manifest.json") if read_manifest(path.parent).stage == stage
    )
    return found


def test_collected_programs_keep_their_lines_and_their_worth(project: Path) -> None:
    episodes = list(read_parquet(run_of(project, "collect") / "trajectories.parquet", Episode))
    led = [episode for episode in episodes if episode.metadata["mode"] == "expert"]
    assert len(episodes) == 2 * 4 and led and all(episode.success for episode in led)
    for episode in led:
        program, submit = episode.actions
        assert submit == "submit" and "\n" in program and ast.parse(program)
    labels = {(action, label) for e in episodes for step in e.steps for action, label in step.alternatives.items()}
    assert {True, False} == {
        label for action, label in labels if action.startswith("def ")
    }  # hard_negatives, right and wrong
    assert any(not episode.success for episode in episodes)


def test_perturbed_copies_hold_commands_that_nobody_follows_by_chance(project: Path) -> None:
    episodes = list(read_parquet(run_of(project, "perturb") / "trajectories.parquet", Episode))
    records = [record for e in episodes for step in e.steps for record in step.perturbations]
    commanded = {record.detail["target_action"] for record in records if record.family == "prompt_injection"}
    assert commanded == {FALLBACK} and {"timeout", "truncate"} & {record.operator for record in records}


def test_candidates_are_judged_by_the_hidden_tests(project: Path) -> None:
    lines = (run_of(project, "candidates") / "candidates.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 8
    for row in rows:
        right = row["expert_action"] == "submit"  # as the program that stands there is
        assert {one["progress"] for one in row["candidates"] if one["text"] == "submit"} <= {right}
        assert not any(one["progress"] for one in row["candidates"] if one["text"] != "submit")
    assert any("\n" in row["expert_action"] for row in rows)


def test_the_small_model_is_right_exactly_where_a_right_program_stands(project: Path) -> None:
    run = run_of(project, "router_features")
    labels = set()
    for episode in read_parquet(run / "trajectories.parquet", Episode):
        submitted = [step for step in episode.steps if step.executed and step.action == "submit"]
        assert episode.truncated == (not submitted) and episode.success == any(step.progress for step in submitted)
        for step in episode.steps:
            chosen = step.decision.candidates[step.decision.chosen] if step.decision else None
            if chosen and chosen.text == "submit":
                assert chosen.progress == (step.remaining == 1)
                labels.add(chosen.progress)
    assert labels == {True, False}


def test_every_method_was_played_and_reported(project: Path) -> None:
    with (project / "results/tiny/structured_results/main_table.csv").open(newline="") as handle:
        rows = {(row["method"], row["condition"]): float(row["success_rate"]) for row in csv.DictReader(handle)}
    assert len(rows) == 16 and rows["llm_only", "clean"] == 1.0 and rows["slm_only", "clean"] == 0.0
    assert "<title>R2V on humaneval" in (project / "results/tiny/report.html").read_text()


@pytest.mark.parametrize(
    ("stage", "records", "fewest"),
    [
        ("collect", 5, 2),
        ("policy_rollouts", 4, 1),
        ("candidates", 5, 2),
        ("router_features", 20, 2),
        ("train_router", 60, 2),
        ("evaluate_noisy", 12, 2),
    ],
)
def test_a_stage_killed_at_random_records_ends_as_one_that_ran_through(
    project: Path, tmp_path: Path, stage: str, records: int, fewest: int
) -> None:
    whole = run_of(project, stage)
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / whole.relative_to(project))
    arguments = [stage, "--config", "configs/tiny.yaml", "--partition", "humaneval:expert|1"]
    assert run_with_kills(copy, arguments, random.Random(stage), records) >= fewest
    again = run_of(copy, stage)
    assert read_manifest(again).digest == read_manifest(whole).digest
    assert not (again / "unfinished").exists()
    for path in whole.glob("*.jsonl"):
        if not path.name.startswith(("log", "collection_log")):
            assert sorted(lines(again / path.name)) == sorted(lines(path)), path.name


@pytest.mark.parametrize(
    ("stage", "changes", "later_s"),
    [("task_suite", 15, 0.01), ("perturb", 18, 0.01), ("result_tables", 250, 1.0), ("report", 15, 0.1)],
)
def test_a_stage_killed_anywhere_ends_as_one_that_ran_through(
    project: Path, tmp_path: Path, stage: str, changes: int, later_s: float
) -> None:
    whole = run_of(project, stage)
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / whole.relative_to(project))
    shutil.rmtree(copy / "results")
    arguments = [stage, "--config", "configs/tiny.yaml", "--partition", "humaneval:expert|1"]
    kills = run_with_kills_anywhere(copy, arguments, random.Random(stage), changes, later_s)
    print(f"\n{stage}: {kills} kills")
    assert kills >= 1
    again = run_of(copy, stage)
    made, expected = read_manifest(again), read_manifest(whole)
    assert (made.status, made.digest, made.counts) == ("done", expected.digest, expected.counts)
    assert files(again) == files(whole)
    if stage in ("result_tables", "report"):  # what they publish is whole, too
        published = {path for path in files(project / "results/tiny") if (path == "report.html") == (stage == "report")}
        assert files(copy / "results/tiny") - {".lock"} == published - {".lock"}


def files(folder: Path) -> set[str]:
    """The files in a folder, by their relative paths."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[str]:
    """What identifies each record of a file."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [str((one.get("episode_id"), one.get("step"), one.get("task_id"))) for one in found]
