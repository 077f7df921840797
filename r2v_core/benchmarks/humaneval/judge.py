"""What a program for a HumanEval problem is worth, and what it does on the visible examples. Both in the sandbox.

**Why a program can't forge its verdict.** It never meets the tests. Its box holds the arguments of the calls that the
hidden tests make, and nothing else of them: no assertion, no expected value, no reference solution, no channel on which
a verdict is given. What it writes there is taken for answers to those calls, as literals that are parsed and never
executed, and that hold numbers of ``fractions``, ``decimal`` and numpy as such, so that the tests treat them as they
would. The tests run afterwards in another box, on these answers, with the data set's own code only. So leaving
early (``sys.exit``, ``os._exit``, a crash, a kill) leaves calls unanswered, printing adds answers that are wrong,
objects that claim to equal everything become plain data, and what it redefines, reads, patches or starts ends with its
box.

Verdicts are the official harness's but for three things. A class that redefines ``==`` is no data and equals nothing.
HumanEval/33, whose tests compare a program with itself, compares it with the reference solution. And limits are of
processor time, 3 s a problem.

What a program can still do: see all calls at once, so that it may answer them by a table (it has to know the right
values); and answer from what it was trained on, which no harness can tell. A program that mutates its arguments is
judged by what it returns. One whose answers depend on the clock or on addresses can get another verdict another time;
``random`` and hash seeds are fixed. Limits are processor time, so a busy machine changes little.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.humaneval.data import Problem, hiding_places
from r2v_core.benchmarks.humaneval.examples import Example, examples
from r2v_core.benchmarks.once import once
from r2v_core.errors import R2VError
from r2v_core.sandbox import Limits, SandboxResult, find_backend, run
from r2v_core.sandbox.isolation import interpreter

LIMITS = Limits(wall_s=15.0, cpu_s=3, memory_mb=512, processes=8, disk_mb=16, output_kb=1024)
PLUS_LIMITS = Limits(wall_s=60.0, cpu_s=20, memory_mb=1024, processes=8, disk_mb=64, output_kb=16384)
"""HumanEval+ asks for up to a thousand answers, some of them large."""

LONGEST = 200
"""Characters shown of a value or an error."""
KILLED = (-9, 137)
"""Exit codes of a program that the kernel ended, as it does at the limit on processor time."""

_SCRIPT = Path(__file__).with_name("sandbox_worker.py")
_SCRIPTS = (_SCRIPT, _SCRIPT.with_name("sandbox_values.py"))
PACKAGES = ("numpy", "numpy.libs")
"""Folders of installed packages that a program may import from, where they are here: numpy with its libraries, as the
data set's own harness would find it."""
_REMEMBERED = 16384
"""Verdicts kept: a few hundred bytes each, and equal candidates are frequent."""


@dataclass(frozen=True)
class Verdict:
    """How a program does on the hidden tests."""

    passed: int
    total: int
    solved: bool


@dataclass(frozen=True)
class Trial:
    """How a program does on the visible examples."""

    right: int
    total: int
    problem: str
    """Why the examples did not all run; empty if they did."""
    wrong: tuple[str, ...]
    """One line for each wrong example."""


@dataclass(frozen=True)
class Hidden:
    """What running the reference solution once has told."""

    total: int
    calls: str
    expected: str
    examples: tuple[Example, ...]
    """The visible ones that are right: the reference solution fulfils them (six of the data set's are not)."""


@once(1024)
def hidden(problem: Problem, sandbox: str) -> Hidden:
    """The problem's tests as calls; made once.

    Raises:
        R2VError: if the reference solution does not pass them, or there is no sandbox.
    """
    shown = examples(problem.prompt, problem.entry_point)
    ended = _box("record", problem, sandbox, {"problem.json": _described(problem, shown)})
    try:
        (found,) = map(json.loads, ended.stdout.splitlines())
        if not found["sound"]:
            raise ValueError
    except ValueError:
        what = (
            f"stopped for its {ended.stopped}" if ended.stopped else "check its data, or use another version of Python"
        )
        raise R2VError(f"{problem.task_id}: its own reference solution does not pass its tests here ({what})") from None
    kept = tuple(pair for pair, right in zip(shown, found["examples"], strict=True) if right)
    return Hidden(found["total"], "\n".join(found["calls"]), "\n".join(found["expected"]), kept)


@once(_REMEMBERED)
def verdict(problem: Problem, program: str, sandbox: str) -> Verdict:
    """Judge a program by the hidden tests; equal programs run once.

    Raises:
        R2VError: if there is no sandbox here.
    """
    tests = hidden(problem, sandbox)
    files = {**_program(problem, program), "calls.txt": tests.calls}
    answers = _box("answer", problem, sandbox, files).stdout
    if not answers:
        return Verdict(0, tests.total, False)
    files = {"problem.json": _described(problem), "calls.txt": tests.calls, "expected.txt": tests.expected}
    ended = _box("judge", problem, sandbox, {**files, "answers.txt": answers})
    try:
        (found,) = map(json.loads, ended.stdout.splitlines())
    except ValueError:  # answers that the parser gives up on
        return Verdict(0, tests.total, False)
    return Verdict(found["passed"], tests.total, found["ended"] and found["passed"] == found["ran"] == tests.total)


@once(_REMEMBERED)
def trial(problem: Problem, program: str, sandbox: str) -> Trial:
    """Run the visible examples.

    Raises:
        R2VError: if there is no sandbox here.
    """
    shown = hidden(problem, sandbox).examples
    files = {**_program(problem, program), "examples.json": json.dumps(shown)}
    ended = _box("try", problem, sandbox, files)
    lines = ended.stdout.splitlines()
    if not lines:
        return Trial(0, len(shown), _why(ended, problem), ())
    try:
        loads, *found = map(json.loads, lines)
        complaint = loads["loads"]
        wrong = [_said(*pair, one) for pair, one in zip(shown, found, strict=False) if not one["right"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Trial(0, len(shown), "the program wrote into its result", ())
    if complaint is not None:
        return Trial(0, len(shown), f"the program does not load: {_plain(complaint)}", ())
    ran = min(len(found), len(shown))
    return Trial(ran - len(wrong), len(shown), _why(ended, problem) if ran < len(shown) else "", tuple(wrong))


def _why(ended: SandboxResult, problem: Problem) -> str:
    """Why a run did not come to its end."""
    if ended.stopped or ended.exit_code not in KILLED:
        return f"stopped for its {ended.stopped}" if ended.stopped else "it ended before all examples had run"
    return f"stopped for its time, more than {_limits(problem).cpu_s} s"


def _said(expression: str, expected: str, one: dict[str, Any]) -> str:
    if "got" in one:
        return f"{expression} gave {_plain(one['got'])} instead of {expected}"
    return f"{expression} raised {_plain(one['error'])}"


def _plain(told: Any) -> str:
    """What a program made appear, as a short text in one line that can be stored."""
    text = str(told).replace("\n", " ").encode(errors="backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _program(problem: Problem, program: str) -> dict[str, str]:
    """The program, and the problem's imports and helpers that are run before it; its line numbers stay its own."""
    return {"program.py": program, "preamble.py": problem.preamble, "entry_point.txt": problem.entry_point}


def _described(problem: Problem, shown: list[Example] | None = None) -> str:
    return json.dumps(
        {
            "source": problem.source,
            "entry_point": problem.entry_point,
            "test": problem.test,
            "inputs": json.loads(problem.inputs) if problem.inputs else None,
            "atol": problem.atol,
            "examples": shown or [],
        }
    )


def _box(mode: str, problem: Problem, sandbox: str, files: dict[str, str]) -> SandboxResult:
    """Run one mode of the script, with a fixed hash seed and no installed package but :data:`PACKAGES`."""
    backend = find_backend(sandbox)
    packages = _packages() if backend != "apptainer" else []  # another Python's would not load
    command = ["/usr/bin/env", "PYTHONHASHSEED=0", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"]
    command += [interpreter(backend), "-S", "-B", _SCRIPT.name, mode]
    files = {path.name: path.read_text(encoding="utf-8") for path in _SCRIPTS} | files
    files["packages.txt"] = "\n".join(sorted({str(path.parent) for path in packages}))
    limits, hidden_here = _limits(problem), hiding_places()
    return run(command, files=files, limits=limits, backend=sandbox, readable=packages, hidden=hidden_here)


@lru_cache(maxsize=1)
def _packages() -> list[Path]:
    """The folders of :data:`PACKAGES` that are here."""
    spec = find_spec(PACKAGES[0])
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    return [path for place in places for name in PACKAGES if (path := place.with_name(name).resolve()).is_dir()]


def _limits(problem: Problem) -> Limits:
    return PLUS_LIMITS if problem.inputs else LIMITS
