"""The data stages on MiniWoB++, as users run them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from r2v_core.benchmarks.base import Task
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.trajectory import Episode
from tests.stages.conftest import environment

ROOT = Path(__file__).parents[2]
TINY = """
defaults: [miniwob/mrp]
name: tiny
benchmark:
  max_steps: 5
  splits: {train: 2, router: 1, validation: 1, test: 1}
  options: {tasks_per_template: 1, templates: [click-link, enter-text, choose-list, click-tab, login-user]}
collection: {episodes_per_task: 2, explore_all_episodes: 1, parallel: 4}
perturbations:
  distractors: {decoy_objects: 0.4, shuffle: 0.4}
  prompt_injection: {override: 0.4}
"""


def test_suite_collect_perturb(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "tiny.yaml").write_text(TINY)

    def run(stage: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"r2v_core.stages.{stage}", "--config", "configs/tiny.yaml"]
        partition = ["--partition", "miniwob:expert|1"]
        done = subprocess.run(
            [*command, *partition, *arguments], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    runs = tmp_path / "data" / "miniwob_mrp" / "runs"
    run("task_suite")
    tasks = list(JsonlStore(next(runs.glob("task_suite*")) / "tasks.jsonl", Task))
    assert len({task.template_id for task in tasks}) == 5 and [task.split for task in tasks].count("train") == 2

    run("collect")
    run("collect", "--no-resume", "--overrides", "collection.parallel=1")
    first, second = sorted(runs.glob("miniwob_env_expert*"))
    assert read_manifest(first).digest == read_manifest(second).digest
    episodes = list(read_parquet(first / "trajectories.parquet", Episode))
    assert len(episodes) == 6
    for episode in episodes:
        if episode.metadata["mode"] == "expert":
            assert episode.success and all(step.progress and step.actor == "teacher" for step in episode.steps)
    assert all(step.expert_action for episode in episodes for step in episode.steps)

    run("perturb", "--input", f"trajectories={first}")
    perturbed = list(read_parquet(next(runs.glob("perturb*")) / "trajectories.parquet", Episode))
    records = [record for episode in perturbed for step in episode.steps for record in step.perturbations]
    assert {"decoy_objects", "shuffle", "override"} <= {record.operator for record in records}
    injected = [record.detail["target_action"] for record in records if record.operator == "override"]
    assert all(action.startswith("click('") for action in injected)
