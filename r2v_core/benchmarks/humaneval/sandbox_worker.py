"""What runs inside the sandbox for HumanEval. Standard library only; the pipeline sends this file, it never imports it.

``python sandbox_worker.py MODE`` with ``sandbox_values.py`` and the mode's files beside it; the folders named in
``packages.txt`` are where a program may import packages from:

- ``answer``: load ``program.py`` (a model's) after ``preamble.py`` and answer every call of ``calls.txt``, a line each.
- ``try``: load both and evaluate the visible examples of ``examples.json``.
- ``record``: from ``problem.json``, note which calls the hidden tests make, and that the reference solution passes.
- ``judge``: run the hidden tests of ``problem.json`` on the answers in ``answers.txt`` to the calls in ``calls.txt``.

The first two modes run a model's program, the last two run only what the data set ships, in other boxes.
"""

from __future__ import annotations

import ast
import json
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__:
    from r2v_core.benchmarks.humaneval.sandbox_values import decode, encode
else:  # in the box
    from sandbox_values import decode, encode  # type: ignore[import-not-found,no-redef]


class Unanswered(Exception):
    """The program gave no answer to this call."""


def read(name: str) -> str:
    """A file of the box."""
    return Path(name).read_text(encoding="utf-8")


def load(source: str, preamble: str = "") -> dict[str, Any]:
    """The names that a program defines, with those of its preamble."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(preamble, "preamble.py", "exec"), names)
    exec(compile(source, "program.py", "exec"), names)
    return names


def complaint(error: BaseException) -> str:
    """An error in one line, with the program's line where it is known."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == "program.py" else line
        trace = trace.tb_next
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {what}".strip(": ") + (f" (line {line})" if line else "")


def quiet() -> Callable[[str], None]:
    """Send what the program prints to nowhere; what is returned writes a line to the real standard output."""
    real = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def say(line: str) -> None:
        real.write(line + "\n")
        real.flush()

    return say


def answer(say: Callable[[str], None]) -> None:
    """One line a call: ``= literal``, or ``! error``."""
    calls = [decode(line) for line in read("calls.txt").splitlines()]
    function = load(read("program.py"), read("preamble.py"))[read("entry_point.txt")]
    for arguments in calls:
        try:
            line = "= " + encode(function(*arguments))
        except BaseException as error:
            line = "! " + type(error).__name__
        say(line.replace("\n", " "))


def attempt(say: Callable[[str], None]) -> None:
    """One JSON line an example: was it right, and what came out; before them, whether the program loads."""
    try:
        names = load(read("program.py"), read("preamble.py"))
        names[read("entry_point.txt")]
    except KeyError as error:
        say(json.dumps({"loads": f"it does not define {error}"}))
        return
    except BaseException as error:
        say(json.dumps({"loads": complaint(error)}))
        return
    say(json.dumps({"loads": None}))
    for expression, expected in json.loads(read("examples.json")):
        try:
            got = eval(expression, dict(names))
            found = {"right": bool(got == ast.literal_eval(expected)), "got": repr(got)[:1000]}
        except BaseException as error:
            found = {"right": False, "error": complaint(error)[:1000]}
        say(json.dumps(found))


class Counting(ast.NodeTransformer):
    """Assertions become calls of ``_hold`` that count instead of ending the test; those of a constant go."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Replace one assertion."""
        if isinstance(node.test, ast.Constant):
            return ast.Pass()
        held = ast.parse("try:\n    _hold(0)\nexcept Exception:\n    _hold(False)").body[0]
        assert isinstance(held, ast.Try) and isinstance(held.body[0], ast.Expr)
        assert isinstance(held.body[0].value, ast.Call)
        held.body[0].value.args = [node.test]
        return held


def run_check(problem: dict[str, Any], candidate: Callable[..., Any]) -> tuple[bool, list[bool]]:
    """Run the data set's ``check(candidate)``: did it come to its end, and which of its assertions held."""
    held: list[bool] = []
    names = load(problem["source"])
    names["_hold"] = lambda outcome: held.append(bool(outcome))
    tree = ast.fix_missing_locations(Counting().visit(ast.parse(problem["test"])))
    exec(compile(tree, "test.py", "exec"), names)
    random.seed(0)
    try:
        names["check"](candidate)
    except Exception:
        return False, held
    return True, held


def record(say: Callable[[str], None]) -> None:
    """The calls, what the reference answers (HumanEval+), how many assertions there are, which examples hold."""
    problem = json.loads(read("problem.json"))
    names = load(problem["source"])
    reference = names[problem["entry_point"]]
    calls: list[str] = []
    expected: list[str] = []

    def noted(*arguments: Any) -> Any:
        calls.append(encode(arguments))
        return reference(*arguments)

    if problem["inputs"] is None:
        ended, held = run_check(problem, noted)
        sound, total = ended and all(held) and bool(held), len(held)
    else:
        for arguments in problem["inputs"]:
            calls.append(encode(tuple(arguments)))
            expected.append(encode(reference(*arguments)))
        sound, total = True, len(calls)
    examples = []
    for expression, wanted in problem["examples"]:
        try:
            examples.append(bool(eval(expression, dict(names)) == ast.literal_eval(wanted)))
        except Exception:
            examples.append(False)
    say(json.dumps({"sound": sound, "total": total, "calls": calls, "expected": expected, "examples": examples}))


def judge(say: Callable[[str], None]) -> None:
    """How many hidden tests the answers pass, and whether all of them ran."""
    problem = json.loads(read("problem.json"))
    calls, answers = read("calls.txt").splitlines(), read("answers.txt").splitlines()
    if problem["inputs"] is None:
        left = iter(zip(calls, answers, strict=False))

        def replayed(*arguments: Any) -> Any:
            call, answered = next(left, ("", ""))
            if call != encode(arguments):
                raise Unanswered
            return value_of(answered)

        ended, held = run_check(problem, replayed)
    else:
        ended = True
        atol, held = problem["atol"], []
        for call, expected, answered in zip(calls, read("expected.txt").splitlines(), answers, strict=False):
            right, atol = agrees(problem, call, expected, answered, atol)
            held.append(right)
    say(json.dumps({"ended": ended, "passed": sum(held), "ran": len(held)}))


def value_of(line: str) -> Any:
    """The value in a line of answers.

    Raises:
        Unanswered: if it holds none.
    """
    if not line.startswith("= "):
        raise Unanswered
    try:
        return decode(line[2:])
    except Exception:
        raise Unanswered from None


def agrees(problem: dict[str, Any], call: str, expected: str, line: str, atol: float) -> tuple[bool, float]:
    """HumanEval+: is the answer to a call the reference's, within a tolerance; and the tolerance of further calls.

    As evalplus compares: a problem without a tolerance gets 1e-6 with the first call that expects floats, and keeps it;
    within a tolerance an answer has to be of the expected type.
    """
    try:
        got, wanted = value_of(line), decode(expected)
        if problem["entry_point"] == "find_zero":  # any root will do
            (coefficients,) = decode(call)
            return bool(abs(sum(c * math.pow(got, i) for i, c in enumerate(coefficients))) <= atol), atol
        equal = got == wanted
        atol = atol or (1e-6 if floats(wanted) else 0)
        return bool(equal or (atol and type(got) is type(wanted) and close(got, wanted, atol))), atol
    except Exception:
        return False, atol


def floats(value: Any) -> bool:
    """A float, or a list or tuple of floats alone."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def close(got: Any, wanted: Any, atol: float) -> bool:
    """Equal numbers within ``atol`` + 1e-7 relative, element by element."""
    if isinstance(wanted, (list, tuple)):
        return len(got) == len(wanted) and all(close(*pair, atol) for pair in zip(got, wanted, strict=True))
    return bool(got == wanted or abs(got - wanted) <= atol + 1e-7 * abs(wanted))


MODES = {"answer": answer, "try": attempt, "record": record, "judge": judge}

if __name__ == "__main__":
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    sys.path += read("packages.txt").splitlines()
    random.seed(0)
    MODES[sys.argv[1]](quiet())
