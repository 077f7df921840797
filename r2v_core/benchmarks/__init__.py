"""Benchmarks by name, imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from r2v_core.benchmarks.actions import ACTION_FORMS, ActionForm
from r2v_core.benchmarks.base import Benchmark
from r2v_core.errors import R2VError, nearest
from r2v_core.sandbox import in_force

BENCHMARKS: dict[str, str] = {
    "miniwob": "r2v_core.benchmarks.miniwob.benchmark:MiniWob",
    "webarena": "r2v_core.benchmarks.webarena.benchmark:WebArena",
    "textworld": "r2v_core.benchmarks.textworld.benchmark:TextWorld",
    "humaneval": "r2v_core.benchmarks.humaneval.benchmark:HumanEval",
    "swebench": "r2v_core.benchmarks.swebench.benchmark:SweBench",
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


def action_reader(name: str) -> Callable[[str], str]:
    """What makes an action of a language model's reply in a benchmark; needs none of the benchmark's libraries."""
    return ACTION_FORMS[action_form(name)]


def action_form(name: str) -> ActionForm:
    """What a benchmark's actions look like as text; needs none of the benchmark's libraries."""
    form: ActionForm = benchmark_class(name).action_form
    return form


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


def survey() -> list[dict[str, Any]]:
    """A row for each benchmark: ``benchmark``, ``ready`` (with default options), what it ``needs``, what ``to_do``.

    ``sandbox`` says what holds the code that models write there, for benchmarks where they write some.
    """
    rows = []
    for name in BENCHMARKS:
        cls = benchmark_class(name)
        problem = cls(cls.Options(), {}, 1).ready()
        row = {"benchmark": name, "ready": problem is None, "needs": cls.needs, "to_do": problem or ""}
        rows.append({**row, "sandbox": in_force() if getattr(cls, "runs_model_code", False) else ""})
    return rows
