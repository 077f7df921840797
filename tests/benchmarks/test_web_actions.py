"""Actions as text: what is read, what is refused, and that reading is quick and never fails."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.benchmarks.web.actions import ACTIONS, MAX_ACTION, Act, act, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("click('12')", ["click", "12"]),
        ('  click("12") \n', ["click", "12"]),
        ("click(12)", ["click", "12"]),
        ("fill('13', 'O\\'Neil, \"x\" (y)')", ["fill", "13", 'O\'Neil, "x" (y)']),
        ("fill('13', '')", ["fill", "13", ""]),
        ("fill('13','a\\nb')", ["fill", "13", "a\nb"]),
        ("select_option('14', 'a', 'b')", ["select_option", "14", "a", "b"]),
        ("select_option('14', ['a', 'b'])", ["select_option", "14", "a", "b"]),
        ("press('15', 'Enter')", ["press", "15", "Enter"]),
        ("noop()", ["noop"]),
    ],
)
def test_read(text: str, parts: list[str]) -> None:
    assert parse(text) == act(parts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["Write one action", "click('12')"]),
        ("I will click('12')", ["Write one action"]),
        ("click('12')\nclick('13')", ["'click'", "click('12')"]),
        ("click", ["Write one action"]),
        ("click()", ["'click'", "click('12')"]),
        ("click('12', '13')", ["'click'"]),
        ("click(['12'])", ["'click'"]),
        ("fill('12' 'x')", ["'fill'", "fill('12', 'text')"]),
        ("fill('12', 'x',)", ["'fill'"]),
        ("fill('12', name)", ["'fill'"]),
        ("fill('12', open('/etc/passwd').read())", ["'fill'"]),
        ("goto('https://example.org')", ["'goto'", "known: click"]),
        ("__import__('os')", ["Unknown action", "click"]),
        ("noop(1)", ["'noop'"]),
        ("fill('1', '" + "x" * MAX_ACTION + "')", [f"longer than {MAX_ACTION}"]),
    ],
)
def test_refused(text: str, words: list[str]) -> None:
    answer = parse(text)
    assert isinstance(answer, str) and "\n" not in answer
    assert all(word in answer for word in words), answer


@pytest.mark.parametrize("example", [example for _, example in ACTIONS.values()])
def test_examples_are_actions(example: str) -> None:
    read = parse(example)
    assert isinstance(read, Act) and read.text == example


@given(st.sampled_from(["fill", "select_option"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_written_and_read_again(name: str, text: str) -> None:
    written = Act(name, ("7", text)).text
    read = parse(written)
    assert isinstance(read, Act) and read.arguments == ("7", text)


@given(st.text(max_size=600) | st.text("click('\"1,)[]\\", max_size=60).map(lambda inside: f"fill({inside})"))
def test_any_text_is_answered(text: str) -> None:
    assert isinstance(parse(text), Act | str)


@pytest.mark.parametrize("part", ["1", "'", "\\", "'a',", "1,", "[", '"\\'])
def test_long_nonsense_is_answered_at_once(part: str) -> None:
    began = time.process_time()
    parse(f"select_option({part * (480 // len(part))}")
    parse(f"select_option({part * (480 // len(part))})")
    assert time.process_time() - began < 5
