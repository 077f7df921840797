"""HumanEval through the pipeline with a small random model: programs as actions, from collection to router features.

No further: the router refuses to learn from a model that is wrong at every step, as a random one is.
"""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

from r2v_core.config.schema import SLM
from r2v_core.manifest import read_manifest
from r2v_core.perturbations.prompt_injection import FALLBACK
from r2v_core.stages.cli import main
from r2v_core.stages.table import STAGES
from r2v_core.store import read_parquet
from r2v_core.trajectory import Episode

ROOT = Path(__file__).parents[2]
CONFIG = """
defaults: [humaneval/mrp]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny}}
benchmark: {{max_steps: 4, splits: {{train: 2, router: 1, validation: 1, test: 1}}}}
slm: {{model: {model}, dtype: float32, max_prompt_tokens: 300, max_action_tokens: 8}}
collection: {{episodes_per_task: 2, explore_all_episodes: 2}}
perturbations:
  seeds: {{train: 2, router: 2, validation: 2, test: 1}}
  prompt_injection: {{override: 0.3}}
training:
  bc: {{max_steps: 2, batch_size: 2}}
  verifier: {{max_steps: 2, batch_size: 2, layers: 1}}
  dpo: {{max_steps: 1, batch_size: 2, consistency_batch: 1}}
candidates: {{k: 2, max_states: 8}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_slm: SLM) -> Path:
    """A project in which these stages of ``humaneval:expert|1`` have run, in this process."""
    root = tmp_path_factory.mktemp("humaneval")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(model=tiny_slm.model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.chdir(root)
        for stage in list(STAGES)[: list(STAGES).index("train_router")]:
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
    assert {True, False} == {label for action, label in labels if action.startswith("def ")}  # slips, right and wrong
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
    assert all(candidate["progress"] in (False, None) for row in rows for candidate in row["candidates"])
    assert any("\n" in row["expert_action"] for row in rows)


def test_rollouts_end_by_submission_or_by_the_step_limit(project: Path) -> None:
    run = run_of(project, "router_features")
    episodes = list(read_parquet(run / "trajectories.parquet", Episode))
    assert len(episodes) == 2 * 2
    for episode in episodes:
        submitted = [step for step in episode.steps if step.executed and step.action == "submit"]
        assert episode.truncated == (not submitted) and episode.success == any(step.progress for step in submitted)
    rows = [json.loads(line) for line in (run / "features.jsonl").read_text().splitlines()]
    assert rows and {row["label_source"] for row in rows} <= {"progress", "outcome"}
