"""Benchmarks by name, imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pydantic import BaseModel

from r2v_core.benchmarks.base import Benchmark
from r2v_core.errors import R2VError, nearest

BENCHMARKS: dict[str, str] = {
    "miniwob": "r2v_core.benchmarks.miniwob:MiniWob",
    "textworld": "r2v_core.benchmarks.textworld:TextWorld",
}
"""Name → 'module:class'. The class takes ``(options, splits, max_steps)`` and has ``Options`` (a pydantic model)."""


def benchmark_class(name: str) -> Any:
    """The class of a benchmark.

    Raises:
        R2VError: for an unknown name, with the known ones.
    """
    if name not in BENCHMARKS:
        raise R2VError(f"Unknown benchmark '{name}'.{nearest(name, BENCHMARKS)}")
    module, _, attribute = BENCHMARKS[name].partition(":")
    return getattr(import_module(module), attribute)


def options_model(name: str) -> type[BaseModel]:
    """The pydantic model of a benchmark's ``options``; importing it needs none of the benchmark's libraries."""
    model: type[BaseModel] = benchmark_class(name).Options
    return model


def make_benchmark(name: str, options: dict[str, Any], splits: dict[str, int], max_steps: int) -> Benchmark:
    """Build a benchmark from its config section.

    Raises:
        R2VError: for an unknown name, or if the benchmark can't run here (with the command that helps).
    """
    cls = benchmark_class(name)
    benchmark: Benchmark = cls(cls.Options.model_validate(options), splits, max_steps)
    problem = benchmark.ready()
    if problem:
        raise R2VError(f"Benchmark '{name}' can't run here: {problem}")
    return benchmark
