"""Episodes side by side: whatever ends them, no environment stays open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from r2v_core.agent.live import Choice, Job, Live
from r2v_core.agent.loop import play
from r2v_core.benchmarks.base import Benchmark, Environment, Task
from r2v_core.perturbations import Noise


class Broken:
    """A driver that breaks at its second decision."""

    def __init__(self) -> None:
        self.asked = 0

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        self.asked += 1
        if self.asked == 2:
            raise KeyError
        return [Choice(one.environment.expert_action() or "look", "teacher") for one in live]


def test_all_are_closed_after_an_exception(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    opened: list[Environment] = []

    def open_environment(task: Task) -> Environment:
        opened.append(benchmark.open(task, cache))
        return opened[-1]

    jobs = [Job(task.task_id, task) for task in tasks[:3]]
    with pytest.raises(KeyError):
        list(
            play(
                jobs,
                Broken(),
                open_environment=open_environment,
                noise=Noise.none(),
                parallel=3,
                benchmark="textworld",
                seed=1,
                metadata={},
            )
        )
    assert len(opened) == 3
    for environment in opened:
        with pytest.raises(RuntimeError, match="closed"):
            environment.reset()
