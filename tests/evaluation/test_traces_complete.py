"""The check that an evaluation is complete with respect to the design that its manifest and task suite record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import EvaluationConfig, SeedsConfig
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.checks import Finding, traces_complete
from r2v_core.stages.design import planned_cells
from r2v_core.trajectory import Decision, Episode, Observation, Step

EVALUATION = EvaluationConfig(methods=["llm_only", "slm_only"], clean_seeds=2, noisy_seeds=2)
SEEDS = SeedsConfig(test=3)
TASKS = [
    Task(task_id=name, template_id=name, benchmark="b", family="f", goal="g", split=split, max_steps=3, content=name)
    for name, split in (("a", "train"), ("t", "test"), ("u", "test"))
]
Change = Callable[[list[Episode]], list[Episode]]


def run(folder: Path, stage: str, artifacts: dict[str, str]) -> UpstreamRun:
    config = {"evaluation": EVALUATION.model_dump(), "perturbations": {"seeds": SEEDS.model_dump()}}
    manifest = RunManifest(
        run_id=folder.name, stage=stage, benchmark="b", provider="p", model="m", seed=1, partition="b:m|1",
        status="done", created_at="2026-01-01T00:00:00Z", output_dir=str(folder), artifacts=artifacts, config=config,
    )  # fmt: skip
    return UpstreamRun(folder, manifest)


def played(condition: str) -> list[Episode]:
    """Every episode of the design, solved in one step."""
    found = []
    for cell in planned_cells("noisy" if condition == "noisy" else "clean", TASKS[1:], EVALUATION, SEEDS, 1):
        decision = Decision(method=cell.method)
        step = Step(index=0, observation=Observation(state="s"), action="go", actor="teacher", decision=decision)
        found.append(
            Episode(
                episode_id=f"{cell.method}~{cell.stream}~{cell.task.task_id}", benchmark="b", goal="g", steps=[step],
                task_id=cell.task.task_id, template_id=cell.task.template_id, success=True, perturbation_seed=cell.z,
                metadata={"method": cell.method, "replicate": cell.replicate},
            )
        )  # fmt: skip
    return found


def check(folder: Path, condition: str, episodes: list[Episode]) -> Finding:
    with JsonlStore(folder / "tasks.jsonl", Task) as store:
        for task in TASKS:
            store.append(task)
    write_parquet(folder / "e.parquet", episodes, Episode)
    evaluation = run(folder, f"evaluate_{condition}", {"episodes": "e.parquet"})
    return traces_complete(evaluation, run(folder, "task_suite", {"tasks": "tasks.jsonl"}))


@pytest.mark.parametrize(("condition", "n"), [("noisy", 24), ("clean", 8)])
def test_the_whole_design_passes(tmp_path: Path, condition: str, n: int) -> None:
    found = check(tmp_path, condition, played(condition))
    assert found.passed and found.facts == {"episodes": n, "expected": n, "errors": 0}


def without(task: str) -> Change:
    return lambda episodes: [episode for episode in episodes if episode.task_id != task]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("u"), "12 missing: ('u', 130000"),  # a task that no method played
        (lambda episodes: episodes[1:], "1 missing"),
        (lambda episodes: [*episodes, episodes[0]], "1 played more than once"),
        (lambda episodes: [*episodes, episodes[0].model_copy(update={"task_id": "x"})], "1 not in the design: ('x'"),
        (lambda episodes: [episodes[0].model_copy(update={"steps": []}), *episodes[1:]], "1 steps without their"),
    ],
)
def test_what_departs_from_the_design_is_named(tmp_path: Path, change: Change, words: str) -> None:
    found = check(tmp_path, "noisy", change(played("noisy")))
    assert not found.passed and words in found.message, found.message


def test_an_episode_that_ended_in_an_error_is_there_and_counts_as_failed(tmp_path: Path) -> None:
    first, *others = played("noisy")
    broken = {"steps": [], "metadata": {**first.metadata, "error": "the browser died"}}
    found = check(tmp_path, "noisy", [first.model_copy(update={**broken, "success": False}), *others])
    assert found.passed and found.facts["errors"] == 1 and "1 ended in an error" in found.message
    found = check(tmp_path, "noisy", [first.model_copy(update=broken), *others])
    assert not found.passed and "1 ended in an error and counted as solved" in found.message
