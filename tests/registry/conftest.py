"""Projects with runs on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from r2v_core.registry import DataRegistry
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunInput, RunManifest, write_manifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.trajectory import Episode, Observation, Perturbation, Step, episodes_digest

MakeRun = Callable[..., Path]


def make_episode(run_id: str, number: int, actions: Sequence[str], **changes: Any) -> Episode:
    """An episode with these actions; its steps cost 50 each."""
    steps = [
        Step(index=i, observation=Observation(state=f"state {i} ünïcødé  "), action=action, actor="teacher", cost=50.0)
        for i, action in enumerate(actions)
    ]
    fields: dict[str, Any] = {
        "episode_id": f"e{number}",
        "benchmark": "textworld",
        "task_id": f"task-{number}",
        "template_id": f"template-{number % 3}",
        "goal": "eat the apple",
        "steps": steps,
        "success": number % 2 == 0,
        "metadata": {"run_id": run_id, "teacher_provider": "env", "teacher_model": "expert", "split": "train"},
    }
    return Episode(**(fields | changes))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "configs").mkdir(parents=True)
    return root


@pytest.fixture
def registry(project: Path) -> DataRegistry:
    return DataRegistry(project)


@pytest.fixture
def make_run(project: Path) -> MakeRun:
    """Write a run directory: ``make_run(run_id, actions_of_each_episode, parquet=…, **manifest_fields)``."""

    def make(
        run_id: str,
        actions: Sequence[Sequence[str]] = (),
        *,
        root: str = "data/runs",
        parquet: bool = False,
        inputs: Sequence[tuple[str, str]] = (),
        episodes: list[Episode] | None = None,
        **fields: Any,
    ) -> Path:
        directory = project / root / run_id
        directory.mkdir(parents=True)
        episodes = episodes or [make_episode(run_id, i, a) for i, a in enumerate(actions)]
        with JsonlStore(directory / "trajectories.jsonl", Episode) as store:
            for episode in episodes:
                store.append(episode)
        if parquet:
            write_parquet(directory / "trajectories.parquet", episodes, Episode)
        values: dict[str, Any] = {
            "run_id": run_id,
            "stage": "collect",
            "benchmark": "textworld",
            "provider": "env",
            "model": "expert",
            "seed": 1,
            "partition": "textworld:expert|1",
            "status": "done",
            "created_at": "2026-01-01T00:00:00.000+00:00",
            "output_dir": f"{root}/{run_id}",
            "config": {"slm": {"model": "m"}},
            "digest": episodes_digest(episodes) if episodes else f"digest-of-{run_id}",
            "artifacts": {"trajectories": "trajectories.jsonl"} if episodes else {},
            "n_episodes": len(episodes),
            "n_success": sum(e.success for e in episodes),
            "n_steps": sum(len(e.steps) for e in episodes),
            "inputs": [RunInput(role=r, run_id=i, digest=f"digest-of-{i}", path=f"data/runs/{i}") for r, i in inputs],
        }
        write_manifest(RunManifest(**(values | fields)), directory)
        return directory

    return make


@pytest.fixture
def noisy_step() -> Step:
    return Step(
        index=0,
        observation=Observation(state="s"),
        action="go",
        actor="slm",
        cost=1.0,
        tokens_in=3,
        perturbations=[Perturbation(family="tool_flakiness", operator="timeout")],
    )


TABLES = ("runs", "episodes", "artifacts", "lineage", "metrics", "evaluations", "slurm_jobs")


def dump(registry: DataRegistry) -> dict[str, list[str]]:
    """Every row of every table, in an order of its own."""
    return {table: sorted(map(repr, registry.sql(f"FROM {table}").to_dict("records"))) for table in TABLES}
