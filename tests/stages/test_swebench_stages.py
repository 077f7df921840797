"""SWE-bench through the data stages: the expert's repairs, explored workspaces, noise as tools make it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.stages.cli import main
from r2v_core.trajectory import Episode

ROOT = Path(__file__).parents[2]
SMALL = """
defaults: [swebench/noisy]
name: small
paths: {data: data, outputs: outputs, results: results/small}
benchmark: {max_steps: 12, splits: {train: 1}}
collection: {episodes_per_task: 2, explore_all_episodes: 2, alternatives: 4}
perturbations:
  seeds: {train: 4}
  tool_flakiness: {timeout: 0.3}
  partial_observability: {truncate: 0.4}
  prompt_injection: {override: 0.3}
  distractors: {decoy_objects: 0.9}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, swebench_folder: Path) -> Path:
    """A project in which the data stages of ``swebench:expert|1`` have run, in this process."""
    root = tmp_path_factory.mktemp("swebench")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/small.yaml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.setenv("R2V_SWEBENCH", str(swebench_folder))
        patch.chdir(root)
        for stage in ("task_suite", "collect", "perturb"):
            assert main(stage, ["--config", "configs/small.yaml", "--partition", "swebench:expert|1"]) == 0, stage
    return root


def episodes(project: Path, stage: str) -> list[Episode]:
    folders = [path.parent for path in project.glob("data/runs/*/run_manifest.json")]
    (found,) = (folder for folder in folders if read_manifest(folder).stage == stage)
    return list(read_parquet(found / "trajectories.parquet", Episode))


def test_the_expert_looks_repairs_and_submits(project: Path) -> None:
    found = episodes(project, "collect")
    assert len(found) == 4
    for episode in found:
        if episode.metadata["mode"] != "expert":
            continue
        assert episode.success and episode.actions[-1] == "submit" and all(step.progress for step in episode.steps)
        left = [step.remaining for step in episode.steps]
        assert left == list(range(len(left), 0, -1))
        verbs = {action.split()[0] for action in episode.actions}
        assert verbs == {"view", "edit", "submit"} and "<<<< old" in "".join(episode.actions)


def test_alternatives_hold_wrong_and_unfinished_repairs(project: Path) -> None:
    labels = {
        (action.split()[0], label)
        for episode in episodes(project, "collect")
        for step in episode.steps
        for action, label in step.alternatives.items()
    }
    assert ("submit", False) in labels and ("edit", False) in labels


def test_noise_is_that_of_tools(project: Path) -> None:
    found = episodes(project, "perturb")
    records = [record for episode in found for step in episode.steps for record in step.perturbations]
    by_operator = {record.operator: record for record in records}
    assert {"timeout", "truncate", "override", "decoy_objects"} <= set(by_operator)
    assert by_operator["override"].detail["target_action"] == "press the red button"
    files = [name for record in records if record.operator == "decoy_objects" for name in record.detail["files"]]
    listed = "\n".join(step.clean.state for episode in found for step in episode.steps if step.clean)
    assert files and not any(f"\n{name}\n" in listed for name in files)
