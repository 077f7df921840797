"""From a model's reply to an action, for benchmarks whose actions are one line and for those whose actions are code."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.benchmarks import BENCHMARKS, action_reader
from r2v_core.benchmarks.actions import code, headline, normalise_action, one_line

PROGRAM = "def f(x):\n    if x:\n        return 'a  b'\n\n    return [x]"
PROGRAMS = st.lists(
    st.sampled_from(["x = 1", "def f(a):\n    return a", "if x:\n    y = '''a\n  b'''", "# note", "z = 'a  b'"]),
    min_size=1,
).map("\n\n".join)


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (PROGRAM, PROGRAM),
        (f"```python\n{PROGRAM}\n```", PROGRAM),
        (f"Here you are:\n\n```py\n{PROGRAM}\n```\nIt tests x.", PROGRAM),
        (f"```\n{PROGRAM}", PROGRAM),  # cut off at the token limit
        (f"~~~\n{PROGRAM}\n~~~", PROGRAM),
        (f"First:\n```\n{PROGRAM}\n```\nor\n```\nrun\n```", PROGRAM),
        (textwrap.indent(f"```python\n{PROGRAM}\n```", "  "), PROGRAM),
        (" run\n", "run"),
        ("```\nsubmit\n```", "submit"),
        ("", ""),
        ("``", "``"),
    ],
)
def test_code_keeps_its_lines_and_loses_its_fence(reply: str, action: str) -> None:
    assert code(reply) == action


@given(PROGRAMS)
def test_a_fenced_program_is_the_program_that_was_fenced(program: str) -> None:
    assert code(program) == program == code(f"Sure!\n```python\n{program}\n```\n")
    assert ast.dump(ast.parse(code(program))) == ast.dump(ast.parse(program))


@given(st.text())
def test_a_line_is_one_line_and_reading_twice_changes_nothing(reply: str) -> None:
    assert one_line(reply) == " ".join(reply.split()) == one_line(one_line(reply))
    assert code(reply).strip() == code(reply) and "\n" not in headline(reply)


@given(st.text().filter(lambda text: "\n" not in text))
def test_the_headline_of_a_line_is_the_line(line: str) -> None:
    assert headline(line) == line


def test_every_benchmark_says_what_its_actions_look_like() -> None:
    assert {name: action_reader(name) for name in BENCHMARKS} == {
        "textworld": one_line,
        "humaneval": code,
        "swebench": code,
        "miniwob": one_line,
        "webarena": one_line,
    }


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  Go\tEAST. ", "go east"),
        ("`go east`", "go east!"),
        ("click('22')", 'Click("22")'),
        ("open 'red door'", "open red door"),
    ],
)
def test_actions_that_mean_the_same_compare_equal(text: str, same: str) -> None:
    assert normalise_action(text) == normalise_action(same) != normalise_action("go west")


@given(st.text())
def test_a_normalised_action_is_its_own_form(text: str) -> None:
    assert normalise_action(normalise_action(text)) == normalise_action(text)
