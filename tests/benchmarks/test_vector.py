"""Slots of environments."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.benchmarks.vector import VectorEnvironment
from r2v_core.errors import R2VError


def test_only_named_slots_are_stepped(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    with VectorEnvironment(benchmark, tasks[:3], cache) as slots:
        first = slots.reset_all()
        outcomes = slots.step({2: "look", 0: slots.environments[0].expert_action() or ""})
        assert list(outcomes) == [0, 2]
        assert outcomes[0].progress is True and outcomes[2].progress is False
        assert slots.step({1: "look"})[1].remaining == first[1].remaining


def test_all_are_closed_after_an_exception(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    with pytest.raises(KeyError), VectorEnvironment(benchmark, tasks[:2], cache) as slots:
        environments = list(slots.environments)
        slots.reset_all()
        raise KeyError
    for environment in environments:
        with pytest.raises(RuntimeError, match="closed"):
            environment.reset()


def test_a_task_that_does_not_open_leaves_none_open(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    broken = tasks[1].model_copy(deep=True)
    broken.options["world"] = "other"
    opened = []

    class Watched:
        name, instructions = benchmark.name, benchmark.instructions
        make_tasks, ready = benchmark.make_tasks, benchmark.ready

        def open(self, task: Task, cache: Path):  # type: ignore[no-untyped-def]
            opened.append(benchmark.open(task, cache))
            return opened[-1]

    with pytest.raises(R2VError, match="another game"):
        VectorEnvironment(Watched(), [tasks[0], broken], cache)
    with pytest.raises(RuntimeError, match="closed"):
        opened[0].reset()
