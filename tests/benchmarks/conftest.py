"""One small TextWorld suite for all tests of this folder (every family, both goal styles), and one web shop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.benchmarks.webarena.sites import ALSO, SITES, variable
from tests.benchmarks import webshop

MIX = [
    {"family": "treasure_hunter", "level": 12},
    {"family": "coin_collector", "level": 103},
    {"family": "custom", "rooms": 3, "objects": 8, "quest_length": 4},
    {"family": "cooking", "recipe": 1, "take": 1, "go": 6, "open": True, "cook": True, "cut": True},
    {"family": "simple", "rewards": "dense"},
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "textworld-cache"


@pytest.fixture(scope="session")
def benchmark() -> Benchmark:
    return make_benchmark(
        "textworld", {"mix": MIX, "goals": ["detailed", "brief"]}, {"train": len(MIX), "test": 2}, max_steps=30
    )


@pytest.fixture(scope="session")
def tasks(benchmark: Benchmark, cache: Path) -> list[Task]:
    return benchmark.make_tasks(1, cache)


@pytest.fixture(scope="session")
def by_family(tasks: list[Task]) -> dict[str, Task]:
    """One task per family."""
    return {task.family: task for task in tasks if task.split == "train" and task.options["goal_style"] == "brief"}


@pytest.fixture(scope="module")
def shop() -> Iterator[webshop.Shop]:
    """The shop runs, stands for all of WebArena's sites, and its task file is WebArena's."""
    with webshop.running() as found, pytest.MonkeyPatch.context() as patch:
        for site in (*SITES, *ALSO):
            patch.setenv(variable(site), found.url + "/admin" * (site == "shopping_admin"))
            keeper = site == "shopping_admin"
            patch.setenv(f"{variable(site)}_USER", webshop.ADMIN["username"] if keeper else webshop.USER)
            patch.setenv(f"{variable(site)}_PASSWORD", webshop.ADMIN["password"] if keeper else webshop.PASSWORD)
        patch.setenv("WA_TASKS", str(webshop.TASKS))
        yield found
