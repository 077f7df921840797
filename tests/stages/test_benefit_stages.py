"""The benefit of a call on real games: known labels, the same after kills, and a router that learns them.

The small model is a script that never does anything of use, so a call is worth 1 exactly where the teacher's action
wins the game at once, and 0 elsewhere.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from r2v_core.agent.continuations import CONTINUATIONS
from r2v_core.models.router import Router, RouterRow
from r2v_core.partition import Partition
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.stages.cli import main
from r2v_core.stages.experiments import partition_config
from r2v_core.trajectory import Episode
from tests.stages.conftest import ROOT
from tests.stages.killing import run_with_kills
from tests.stages.stand_ins import stand_in

KEY = "textworld:expert|1"
CONFIG = """
defaults: [textworld/clean]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny, cache: "{cache}"}}
benchmark:
  max_steps: 5
  splits: {{train: 1, router: 2, validation: 2, test: 1}}
  options: {{goals: [detailed], mix: [{{family: custom, rooms: 2, objects: 4, quest_length: 2}}]}}
slm: {{engine: scripted, engine_options: {{otherwise: [look, inventory]}}}}
perturbations:
  seeds: {{train: 1, router: 5, validation: 5, test: 1}}
  tool_flakiness: {{timeout: 0.2}}
candidates: {{k: 2}}
agent: {{verifier: false, parallel: 6}}
router_features: {{takeover_prob: 0.5, label: benefit, benefit: {{state_share: 0.9, continuations: 4}}}}
training: {{router: {{epochs: 3, calibrate: logged, baselines: [entropy_router]}}}}
"""
RUN = ["--config", "configs/tiny.yaml", "--partition", KEY]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a task suite, rollouts labelled by benefit, and a router; the script stands in for a policy."""
    root = tmp_path_factory.mktemp("benefit")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(cache=root / "cache"))
    loaded = partition_config(Partition.parse(KEY), root / "configs/tiny.yaml", (), root)
    for name in ("train_dpo", "train_verifier"):
        stand_in(root, loaded, KEY, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.chdir(root)
        for stage in ("task_suite", "router_features", "train_router"):
            assert main(stage, RUN) == 0, stage
    return root


def run_of(project: Path, stage: str) -> Path:
    (found,) = (
        path.parent for path in project.glob("*/*/*/run_manifest.json") if read_manifest(path.parent).stage == stage
    )
    return found


def test_a_call_is_worth_what_it_wins(project: Path) -> None:
    run = run_of(project, "router_features")
    rows = list(JsonlStore(run / "features.jsonl", RouterRow))
    episodes = {e.episode_id: e for e in read_parquet(run / "trajectories.parquet", Episode)}
    steps = {(row.episode_id, row.step): episodes[row.episode_id].steps[row.step] for row in rows}
    assert len(rows) > 60 and {row.label for row in rows} == {0.0, 1.0}
    for row in rows:
        step = steps[row.episode_id, row.step]
        wins = step.remaining == 1 and step.executed
        assert row.label == float(wins) and row.alone == [0, 4] and row.with_teacher == [4 if wins else 0, 4]
    assert any(not step.executed and step.remaining == 1 for step in steps.values()), "what a timeout swallows is tried"
    overheard = [step for episode in episodes.values() for step in episode.steps if step.expert_action is not None]
    assert overheard and {step.actor for step in overheard} == {"slm"} and not any(s.cost > 1 for s in overheard)
    drawn = sum(len(episode.metadata.get(CONTINUATIONS, {})) for episode in episodes.values())
    counts = read_manifest(run).counts
    assert counts["states_tried"] == len(rows) == drawn < sum(len(e.steps) for e in episodes.values())
    assert counts["continuations"] == 8 * len(rows) and counts["teacher_overheard"] == len(overheard)
    assert "were tried by" in (run / "preview.md").read_text()


def test_a_router_learns_it_and_says_so(project: Path) -> None:
    run = run_of(project, "train_router")
    assert Router.load(run).label == "benefit" and json.loads((run / "router.json").read_text())["label"] == "benefit"
    assert "against the label 'benefit': expected benefit of a call" in (run / "preview.md").read_text()
    assert 0 <= read_manifest(run).counts["ece"] <= 1


FEWER = ["perturbations.seeds.router=1", "perturbations.seeds.validation=1", "router_features.benefit.state_share=0.5"]


def test_rollouts_and_continuations_that_are_killed_end_as_those_that_ran_through(
    project: Path, tmp_path: Path
) -> None:
    kills = {}
    for name, records in (("whole", 10**9), ("killed", 25)):
        shutil.copytree(project, tmp_path / name)
        for stage in ("router_features", "train_router"):
            shutil.rmtree(tmp_path / name / run_of(project, stage).relative_to(project))
        arguments = ["router_features", *RUN, "--overrides", *FEWER]
        kills[name] = run_with_kills(tmp_path / name, arguments, random.Random(5), records)
    whole, killed = (run_of(tmp_path / name, "router_features") for name in kills)
    assert kills["whole"] == 0 < kills["killed"] and not (killed / "unfinished").exists()
    assert read_manifest(killed).digest == read_manifest(whole).digest
    assert (killed / "features.jsonl").read_bytes() == (whole / "features.jsonl").read_bytes()


def test_a_router_whose_training_is_killed_is_the_same(project: Path, tmp_path: Path) -> None:
    whole = run_of(project, "train_router")
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / whole.relative_to(project))
    assert run_with_kills(copy, ["train_router", *RUN], random.Random(2), 25) >= 1
    assert read_manifest(run_of(copy, "train_router")).digest == read_manifest(whole).digest
