"""Several environments stepped side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from r2v_core.benchmarks.base import Benchmark, Environment, Outcome, Task


class VectorEnvironment:
    """One environment per task, in slots 0 … n-1; a context manager that closes all of them, whatever happens.

    >>> with VectorEnvironment(benchmark, tasks, cache) as slots:     # doctest: +SKIP
    ...     outcomes = slots.reset_all()
    ...     outcomes = slots.step({0: "look", 3: "go east"})
    """

    def __init__(self, benchmark: Benchmark, tasks: Sequence[Task], cache: Path) -> None:
        self.environments: list[Environment] = []
        try:
            for task in tasks:
                self.environments.append(benchmark.open(task, cache))
        except BaseException:
            self.close()
            raise

    def reset_all(self) -> dict[int, Outcome]:
        """Start every slot over; slot → first outcome."""
        return {slot: environment.reset() for slot, environment in enumerate(self.environments)}

    def step(self, actions: Mapping[int, str]) -> dict[int, Outcome]:
        """Carry out one action in each named slot, lowest slot first; slot → outcome."""
        return {slot: self.environments[slot].step(actions[slot]) for slot in sorted(actions)}

    def close(self) -> None:
        """Close every environment; safe to call twice."""
        while self.environments:
            self.environments.pop().close()

    def __enter__(self) -> VectorEnvironment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
