"""Episodes side by side against the same episodes one by one, where environments take the time and no model does.

``python benchmarks/rollout.py --environments waiting miniwob swebench`` runs it. Every measurement has a process of its
own, so that nothing is remembered from the one before.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from r2v_core.agent.live import Job
from r2v_core.agent.loop import play
from r2v_core.agent.proposer import Proposer
from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.table import make_rules
from r2v_core.agent.workers import Threads, useful_threads
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Concurrency, Environment, Outcome, Task
from r2v_core.config.schema import AgentConfig, CandidatesConfig, SLMConfig, TeacherLimitsConfig
from r2v_core.engines.scripted import Options, Scripted
from r2v_core.perturbations import Noise
from r2v_core.teachers import make_teacher
from r2v_core.teachers.context import TeacherContext
from r2v_core.trajectory import Observation

WAIT_S = 0.5
STEPS = 3


class Waiting:
    """An environment that waits for something else in every step."""

    def __init__(self, task: Task) -> None:
        self.task, self.done = task, 0

    def reset(self) -> Outcome:
        """Start over, at once."""
        self.done = 0
        return self._outcome()

    def step(self, action: str) -> Outcome:
        """Wait; the action does not matter."""
        time.sleep(WAIT_S)
        self.done += 1
        return self._outcome()

    def _outcome(self) -> Outcome:
        over = self.done == STEPS
        return Outcome(observation=Observation(state=f"step {self.done}"), done=over, success=over)

    def admissible(self) -> list[str]:
        """One action."""
        return ["look"]

    def hard_negatives(self) -> list[str]:
        """None."""
        return []

    def would_progress(self, action: str) -> bool | None:
        """Always."""
        return True

    def expert_action(self) -> str | None:
        """The one action."""
        return "look"

    def close(self) -> None:
        """Nothing is open."""


class WaitingBenchmark:
    """Where environments come from that only wait."""

    name = "waiting"
    instructions = "Say look."
    concurrency: Concurrency = "waiting"

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """As many as are asked for."""
        return [
            Task(
                task_id=f"t{n}", template_id=f"t{n}", benchmark="waiting", family="waiting", goal="Wait.", split="test",
                max_steps=STEPS, content=str(n),
            )
            for n in range(64)
        ]  # fmt: skip

    def open(self, task: Task, cache: Path) -> Environment:
        """A new one."""
        return Waiting(task)


@dataclass(frozen=True)
class Setting:
    """What is played of a benchmark."""

    episodes: int
    method: str = "llm_only"
    """``llm_only``: by the benchmark's own expert; ``slm_only``: by the engine ``scripted``."""
    options: dict[str, Any] = field(default_factory=dict)
    templates: int = 1
    max_steps: int = 20


SETTINGS = {
    "waiting": Setting(16, "slm_only"),
    "textworld": Setting(24, templates=24, options={"mix": [{"family": "treasure_hunter", "level": 12}]}),
    "humaneval": Setting(16, templates=16),
    "miniwob": Setting(16, templates=16, options={"tasks_per_template": 1}),
    "swebench": Setting(4, templates=4),
}


def measured(name: str, side_by_side: bool, cache: Path) -> tuple[float, int]:
    """Seconds and steps of a benchmark's episodes."""
    setting = SETTINGS[name]
    splits = {"test": setting.templates}
    benchmark: Any = (
        WaitingBenchmark()
        if name == "waiting"
        else make_benchmark(name, {**setting.options}, splits, setting.max_steps)
    )
    tasks = benchmark.make_tasks(1, cache)[: setting.episodes]
    parallel = len(tasks) if side_by_side else 1
    threads = Threads(useful_threads(benchmark.concurrency, parallel)) if side_by_side else None
    agent = AgentConfig()
    driver = RoutedAgent(
        Proposer(Scripted(Options()), None, CandidatesConfig(), 1),
        make_teacher("expert", {}, TeacherLimitsConfig(), TeacherContext(cache, cache, cache)),
        make_rules([setting.method], agent, 1, None),
        agent,
        SLMConfig(),
        benchmark.instructions,
    )
    began, steps = time.perf_counter(), 0
    for episode in play(
        [Job(task.task_id, task, method=setting.method) for task in tasks],
        driver,
        open_environment=lambda task: benchmark.open(task, cache),
        noise=Noise.none(),
        parallel=parallel,
        benchmark=name,
        seed=1,
        metadata={},
        threads=threads,
    ):
        if not episode.success:
            raise SystemExit(f"{name}: {episode.episode_id} failed ({episode.error})")
        steps += len(episode.steps)
    return time.perf_counter() - began, steps


def compare(names: list[str], repeats: int, cache: Path) -> None:
    """Alternate one by one and side by side, and print the ratios."""
    for name in names:
        ratios = []
        for repeat in range(repeats):
            (one_s, steps), (all_s, _) = (_apart(name, side_by_side, cache) for side_by_side in (False, True))
            ratios.append(one_s / all_s)
            print(
                f"{name}, repeat {repeat + 1}: {steps} steps one by one {one_s:.1f} s, side by side {all_s:.1f} s",
                flush=True,
            )
        print(f"{name}: {SETTINGS[name].episodes} episodes side by side {statistics.median(ratios):.1f} x", flush=True)


def _apart(name: str, side_by_side: bool, cache: Path) -> tuple[float, int]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, name, side_by_side, cache).result()
