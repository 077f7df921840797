"""What a teacher reads, and which action is read in its reply."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2v_core.teachers.conversation import ParsedAction, conversation, correction, read_action
from tests.teachers.conftest import situation, step


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("go east", "go east"),
        ("  go east\n", "go east"),
        ("> go east", "go east"),
        ("Action: go east", "go east"),
        ("Next action: `go east`", "go east"),
        ('"go east"', "go east"),
        ("“go east”", "go east"),
        ('put "a" and "b"', 'put "a" and "b"'),
        ('"a" and "b"', '"a" and "b"'),
        ("`", "`"),
        ("I'll look first.\n<action>go east</action>", "go east"),
        ("<ACTION>\ngo east\n</ACTION> or <action>go west</action>", "go west"),
        ("Here:\n```\ngo east\n```\nThat opens the door.", "go east"),
        ("```python\nx = 1\nprint(x)\n```", "x = 1\nprint(x)"),
        ("<think>east\nor west?</think>\ngo east", "go east"),
    ],
)
def test_actions_are_found(reply: str, action: str) -> None:
    assert read_action(reply) == ParsedAction(action)


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("def f(x):\n    return x", "def f(x):\n    return x"),
        ("<think>easy</think>\n```python\ndef f(x):\n    return x\n```\nDone.", "def f(x):\n    return x"),
        ("Action: run", "run"),
        ("`submit`", "submit"),
        ("```\nrun\n```", "run"),
    ],
)
def test_programs_are_found_where_actions_are_code(reply: str, action: str) -> None:
    assert read_action(reply, "code") == ParsedAction(action)


def test_a_program_that_was_cut_off_is_malformed() -> None:
    assert read_action("def f(x):\n    retu", "code", cut=True).problem == "the program did not come to an end"
    assert read_action("```python\ndef f(x):\n    retu", "code", cut=True).problem
    whole = "```python\ndef f(x):\n    return x\n```\nThis function ret"
    assert read_action(whole, "code", cut=True) == ParsedAction("def f(x):\n    return x")


@pytest.mark.parametrize(
    ("reply", "guess", "problem"),
    [
        ("", "", "empty"),
        (" \n\t\n", "", "empty"),
        ("Action:", "", "empty"),
        ("<action> </action>", "", "marked action is empty"),
        ("<think>east, or", "", "did not come to an end"),
        ("Go east.\nThen take the key.", "Go east.", "has 2 lines"),
    ],
)
def test_what_is_no_action_is_said(reply: str, guess: str, problem: str) -> None:
    reading = read_action(reply)
    assert reading.action == guess and problem in (reading.problem or "")


ACTIONS = st.text(st.characters(categories=["L", "N"], include_characters=" ,.-'"), min_size=1).filter(
    lambda text: text.strip() == text and text[0].isalnum() and text[-1].isalnum()
)
WRAPPED = ["{}", "<action>{}</action>", "So:\n<action>\n{}\n</action>", "```\n{}\n```", "`{}`", '"{}"', "Action: {}"]


@settings(deadline=None)
@given(action=ACTIONS, form=st.sampled_from(WRAPPED), reasoning=st.sampled_from(["", "<think>hm\nhm</think>\n"]))
def test_however_it_is_wrapped(action: str, form: str, reasoning: str) -> None:
    if read_action(action).action == action:  # 'action: x' is a labelled action itself
        assert read_action(reasoning + form.format(action)) == ParsedAction(action)


@settings(deadline=None)
@given(st.text())
def test_any_reply_can_be_read(reply: str) -> None:
    reading = read_action(reply)
    assert reading.problem or reading.action


@settings(deadline=None)
@given(shown=st.integers(0, 5), done=st.integers(0, 5), blank=st.booleans())
def test_turns_alternate_and_are_never_empty(shown: int, done: int, blank: bool) -> None:
    history = [step(i, "" if blank else f"act {i}", "" if blank else f"state {i}") for i in range(done)]
    talk = conversation(situation("" if blank else "now", history), shown)
    for messages in (talk, correction(talk, "", "the reply is empty")):
        roles = [message["role"] for message in messages]
        assert roles == ["system", *(["user", "assistant"] * len(roles))[: len(roles) - 1]] and roles[-1] == "user"
        assert all(message["content"] for message in messages)
    assert len(talk) == 2 + 2 * min(shown, done)
    if not blank:
        text = "\n".join(message["content"] for message in talk)
        assert text.index("Goal: Eat.") < text.index("now")
        assert all(text.count(f"act {i}") == 1 for i in range(done))
