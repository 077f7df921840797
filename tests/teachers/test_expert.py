"""The teacher ``expert``: wins from wherever it is asked."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Environment, Outcome, Task
from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.errors import R2VError
from r2v_core.teachers import make_teacher
from r2v_core.teachers.base import Situation
from r2v_core.teachers.context import TeacherContext
from r2v_core.teachers.expert import Expert
from r2v_core.trajectory import Observation

MIX = [
    {"family": "coin_collector", "level": 103},
    {"family": "simple"},
    {"family": "custom", "rooms": 3, "objects": 8, "quest_length": 4},
    {"family": "treasure_hunter", "level": 12},
]


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return make_benchmark("textworld", {"mix": MIX}, {"train": len(MIX)}, max_steps=30)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "textworld-cache"


@pytest.fixture(scope="module")
def tasks(benchmark: Benchmark, cache: Path) -> list[Task]:
    return benchmark.make_tasks(2, cache)


def situation(environment: Environment, outcome: Outcome) -> Situation:
    return Situation(environment, "", environment.task.goal, [], outcome.observation)


@pytest.mark.parametrize("number", range(len(MIX)))
def test_wins_after_40_random_actions(number: int, benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    teacher = make_teacher("expert", {}, TeacherLimitsConfig(), TeacherContext(cache, cache, cache))
    environment = benchmark.open(tasks[number], cache)
    asked = won = 0
    for walk in range(20):
        dice = random.Random(walk)
        outcome = environment.reset()
        for _ in range(40):
            # a policy that avoids what can't be undone: eating, and taking in the treasure hunt
            safe = [a for a in environment.admissible() if not a.startswith(("eat", "take" if number == 3 else "eat"))]
            outcome = environment.step(dice.choice(safe))
            if outcome.done:
                break
        if outcome.done:
            continue
        asked += 1
        for _ in range(80):
            (advice,) = teacher.act([situation(environment, outcome)])
            outcome = environment.step(advice.action)
            if outcome.done:
                break
        won += outcome.success
    environment.close()
    assert won == asked and asked >= 10


def test_waits_where_nothing_can_be_won(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    environment = benchmark.open(tasks[0], cache)
    outcome = environment.reset()
    while not outcome.done:
        outcome = environment.step(environment.expert_action() or "look")
    (advice,) = Expert("expert").act([situation(environment, outcome)])
    assert advice.action == "look" and advice.detail == {"plan": "none"}
    assert advice.cost_usd == advice.tokens_in == advice.tokens_out == 0
    environment.close()


class Expertless:
    """An environment that knows no expert."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def expert_action(self) -> str | None:
        return None


def test_says_where_there_is_no_expert(tasks: list[Task]) -> None:
    environment = Expertless(tasks[0])
    with pytest.raises(R2VError, match="no expert"):
        Expert("expert").act([Situation(environment, "", "", [], Observation(state=""))])  # type: ignore[arg-type]


def test_has_no_options(cache: Path) -> None:
    with pytest.raises(R2VError, match="temperature"):
        make_teacher("expert", {"temperature": 1}, TeacherLimitsConfig(), TeacherContext(cache, cache, cache))
