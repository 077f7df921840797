"""Stored episodes and a stage context, without playing any game."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2v_core.config.schema import Config, SLMConfig
from r2v_core.models.hub import load_tokenizer
from r2v_core.partition import Partition
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunInput, RunManifest, write_manifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageSpec, UpstreamRun
from r2v_core.stages import train_bc
from r2v_core.training.examples import Renderer, instructions_of
from r2v_core.training.preferences import CandidateRow
from r2v_core.trajectory import Candidate, Episode, Observation, Perturbation, Record, Step

THINGS = ("red key", "blue key", "apple", "lamp", "old book", "coin")
WAYS = ("north", "south", "east", "west")


def make_episode(n: int, z: int | None = None, split: str = "train") -> Episode:
    """An episode of three rooms in the way collection writes it; z adds noise and, for even n, a swallowed action.

    Every third one explores to the end; half of those fail.
    """
    draw = random.Random(n)
    explore = n % 3 == 2
    success = not explore or n % 2 == 0
    steps: list[Step] = []
    for i in range(3):
        thing, way = draw.choice(THINGS), draw.choice(WAYS)
        expert = f"take {thing}" if i % 2 == 0 else f"go {way}"
        clean = Observation(state=f"Room {n}{i}. There is a {thing} here. An exit leads {way}.", feedback="Done.")
        seen = clean if z is None else Observation(state=f"{clean.state} A fly hums {z} songs.", feedback="Done.")
        wrong = explore and not success
        step = Step(
            index=len(steps),
            observation=seen,
            clean=None if z is None else clean,
            action="look" if wrong else expert,
            actor="explore" if wrong else "teacher",
            expert_action=expert,
            progress=not wrong,
            remaining=3 - i,
            alternatives={"wait": False, "inventory": False},
            perturbations=[] if z is None else [Perturbation(family="distractors", operator="irrelevant_text")],
        )
        if z is not None and n % 2 == 0 and i == 1:
            steps.append(step.model_copy(update={"executed": False, "progress": None}))
            step = step.model_copy(update={"index": len(steps)})
        steps.append(step)
    mode = "explore_all" if explore else "expert"
    source = f"task{n}~e0"
    return Episode(
        episode_id=source if z is None else f"{source}~z{z}",
        benchmark="textworld",
        task_id=f"task{n}",
        template_id=f"template{n % 5}",
        goal=f"Find everything in house {n}.",
        steps=steps,
        success=success,
        perturbation_seed=z,
        metadata={"run_id": "r", "split": split, "mode": mode, "source_episode_id": source},
    )


@pytest.fixture(scope="session")
def clean_episodes() -> list[Episode]:
    return [make_episode(n) for n in range(12)]


@pytest.fixture(scope="session")
def perturbed_episodes() -> list[Episode]:
    return [make_episode(n, z) for n in range(12) for z in (101, 102)]


@pytest.fixture(scope="session")
def renderer(tiny_slm: SLMConfig, model_cache: Path) -> Renderer:
    return Renderer(load_tokenizer(tiny_slm, model_cache), tiny_slm, instructions_of("textworld"))


class Collected(Reporter):
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__("test")
        self.lines: list[str] = []
        self.done: list[int] = []

    def log(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, what: str, done: int, total: int, **facts: Any) -> None:
        self.done.append(done)


@pytest.fixture
def report() -> Collected:
    return Collected()


def upstream(folder: Path, stage: str, artifacts: dict[str, str]) -> UpstreamRun:
    """A finished run of another stage whose files lie in ``folder``."""
    manifest = RunManifest(
        run_id=stage,
        stage=stage,
        benchmark="textworld",
        provider="env",
        model="expert",
        seed=1,
        partition="textworld:expert|1",
        status="done",
        created_at="2025-01-01T00:00:00+00:00",
        output_dir=str(folder),
        artifacts=artifacts,
    )
    return UpstreamRun(folder, manifest)


def episode_run(folder: Path, stage: str, episodes: list[Episode]) -> UpstreamRun:
    """A finished run that holds episodes."""
    folder.mkdir(parents=True)
    write_parquet(folder / "trajectories.parquet", episodes, Episode)
    return upstream(folder, stage, {"episodes": "trajectories.parquet"})


def record_run(folder: Path, stage: str, name: str, records: list[Record]) -> UpstreamRun:
    """A finished run that holds records of another kind as JSON Lines."""
    folder.mkdir(parents=True)
    with JsonlStore(folder / f"{name}.jsonl", type(records[0])) as store:
        for record in records:
            store.append(record)
    return upstream(folder, stage, {name: f"{name}.jsonl"})


@pytest.fixture
def make_record_run(tmp_path: Path) -> Callable[..., UpstreamRun]:
    """Builds a finished run of records: ``make_record_run("candidates", "candidates", rows)``."""
    return lambda stage, name, records: record_run(tmp_path / f"{stage}-in", stage, name, records)


@pytest.fixture
def make_folder_run() -> Callable[..., UpstreamRun]:
    """Builds a finished run around a folder: ``make_folder_run(folder, "train_bc", {"adapter": "adapter"})``."""
    return upstream


Context = Callable[..., StageContext]


@pytest.fixture
def context(
    tmp_path: Path,
    tiny_slm: SLMConfig,
    model_cache: Path,
    report: Collected,
    clean_episodes: list[Episode],
    perturbed_episodes: list[Episode],
) -> Context:
    """Builds a stage context: ``context("train_bc", bc={"max_steps": 2}, inputs={…}, name="a")``."""

    def build(
        stage: str,
        *,
        name: str = "run",
        inputs: dict[str, UpstreamRun] | None = None,
        slm: SLMConfig | None = None,
        **training: Any,
    ) -> StageContext:
        run_dir = tmp_path / name
        run_dir.mkdir(exist_ok=True)
        if inputs is None:
            inputs = {}
        for role, kind, episodes in (
            ("trajectories", "collect", clean_episodes),
            ("perturbed", "perturb", perturbed_episodes),
        ):
            folder = tmp_path / f"{name}-{kind}"
            if role not in inputs and not folder.exists():
                inputs[role] = episode_run(folder, kind, episodes)
            elif role not in inputs:
                inputs[role] = upstream(folder, kind, {"episodes": "trajectories.parquet"})
        config = Config.model_validate({"training": training, "slm": (slm or tiny_slm).model_dump()})
        spec = StageSpec(
            stage=stage,
            partition="textworld:expert|1",
            provider="env",
            model="expert",
            run_id=name,
            run_dir=str(run_dir),
            project=str(tmp_path),
            config_path=None,
            config=config,
            fingerprint="",
        )
        return StageContext(
            spec=spec,
            config=config,
            partition=Partition.parse(spec.partition),
            run_dir=run_dir,
            cache=model_cache,
            project=tmp_path,
            inputs=inputs,
            report=report,
        )

    return build


@pytest.fixture
def planned() -> Callable[[StageContext], StageSpec]:
    """The context as the planned run that an orchestrator would hand over, with the inputs' manifests on disk."""

    def plan(ctx: StageContext) -> StageSpec:
        inputs = []
        for role, run in ctx.inputs.items():
            write_manifest(run.manifest.model_copy(update={"digest": "d"}), run.directory)
            inputs.append(RunInput(role=role, run_id=run.manifest.run_id, digest="d", path=str(run.directory)))
        config = ctx.config.model_copy(update={"paths": ctx.config.paths.model_copy(update={"cache": str(ctx.cache)})})
        return ctx.spec.model_copy(update={"inputs": inputs, "config": config})

    return plan


QUICK_DPO = {"max_steps": 5, "batch_size": 2, "save_steps": 2, "learning_rate": 5e-3, "warmup_ratio": 0.0}


def _candidate(text: str, progress: bool) -> Candidate:
    return Candidate(text=text, logprob=-1.0, n_tokens=2, entropy=0.5, progress=progress)


@pytest.fixture(scope="session")
def rows(perturbed_episodes: list[Episode], renderer: Renderer) -> list[CandidateRow]:
    return [
        CandidateRow(
            episode_id=episode.episode_id,
            task_id=episode.task_id,
            step=0,
            z=episode.perturbation_seed,
            prompt=renderer.prompt(episode, 0),
            expert_action=episode.steps[0].expert_action,
            candidates=[_candidate("wait", False), _candidate(str(episode.steps[0].expert_action), True)],
        )
        for episode in perturbed_episodes
    ]


@pytest.fixture
def bc_run(context: Context, make_folder_run: Callable[..., UpstreamRun]) -> UpstreamRun:
    """A BC adapter far enough from the base model to tell the two apart."""
    ctx = context("train_bc", name="bc", bc={"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2})
    train_bc.run(ctx)
    return make_folder_run(ctx.run_dir, "train_bc", {"adapter": "adapter"})


@pytest.fixture
def dpo_context(
    context: Context, bc_run: UpstreamRun, rows: list[CandidateRow], make_record_run: Callable[..., UpstreamRun]
) -> Callable[..., StageContext]:
    candidates = make_record_run("candidates", "candidates", rows)

    def build(name: str = "dpo", **dpo: Any) -> StageContext:
        inputs = {"candidates": candidates, "policy": bc_run}
        return context("train_dpo", name=name, inputs=inputs, dpo={**QUICK_DPO, **dpo})

    return build
