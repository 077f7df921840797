"""Text in and out of the interpreter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.benchmarks.textworld.goals import brief_goal, detailed_goal
from r2v_core.benchmarks.textworld.text import (
    MAX_COMMAND,
    clean_command,
    describe_feedback,
    describe_state,
    is_playable,
    mentions,
)


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("Go East", "go east"),
        ("\n  > take  coin.\nI do this because", "take coin"),
        ("look. undo", "look"),
        ("take coin and undo", "take coin"),
        ("go east then restart", "go east"),
        ("take sandwich", "take sandwich"),
        ("ta\x00ke \x1bcoin", "ta ke coin"),
        ("", ""),
        ("…", ""),
    ],
)
def test_clean_command(action: str, command: str) -> None:
    assert clean_command(action) == command


@given(st.text(max_size=400))
def test_commands_are_one_short_plain_line(action: str) -> None:
    command = clean_command(action)
    assert len(command) <= MAX_COMMAND and command.isascii() and command == " ".join(command.split())
    assert clean_command(command) == command


@pytest.mark.parametrize(
    "command", ["undo", "restart", "quit", "save", "tw-trace-actions", "restrict commands", "again", ""]
)
def test_the_machinery_is_out_of_reach(command: str) -> None:
    assert not is_playable(command)


def test_state() -> None:
    description = (
        "-= Attic =-\nYou are in an attic. Wow!\n\n\nYou see a closed chest. Nice one!\n\nThere is an exit to the east."
    )
    state = describe_state(description, "You are carrying nothing.\n", mentions(["chest", "exit"]))
    assert state == "Attic\nYou see a closed chest. There is an exit to the east.\nYou are carrying nothing."


@pytest.mark.parametrize(
    ("feedback", "command", "shown"),
    [
        ("\n-= Attic =-\nAn attic.\n\nYour score has just gone up by one point.\n>  -= Attic =-1/2", "go east",
         "You go to the Attic.\nYour score has just gone up by one point."),
        ("-= Attic =-\nAn attic.\n", "look", "You look around the Attic."),
        ("(opening the door)\n-= Attic =-\nAn attic.", "go east", "(opening the door)\nYou go to the Attic."),
        ("You take it.\n\n   *** The End ***\n\nYou scored 1\nRESTART?", "take it", "You take it.\nYou won!"),
        ("Ouch.\n  *** You lost! ***\nRESTART?", "eat it", "Ouch.\nYou lost!"),
        ("You are carrying: a key.\n\n", "inventory", "You check what you are carrying."),
        ("", "wait", ""),
    ],
)  # fmt: skip
def test_feedback(feedback: str, command: str, shown: str) -> None:
    assert describe_feedback(feedback, "You are carrying: a key.", command) == shown


@pytest.mark.parametrize(
    ("command", "goal"),
    [
        ("take coin", "Find and take the coin."),
        ("take old key from chest", "Find and take the old key."),
        ("put cup on table", "Put the cup on the table."),
        ("insert cup into box", "Put the cup into the box."),
        ("unlock box with key", "Unlock the box."),
        ("drop cup", "Leave the cup on the floor of the attic."),
        ("eat pear", "Eat the pear."),
    ],
)
def test_brief_goal(command: str, goal: str) -> None:
    assert brief_goal(command, "attic") == goal


def test_detailed_goal_drops_small_talk_only() -> None:
    prose = "Welcome to TextWorld! First, go north. Then, open the box. Good luck!"
    assert detailed_goal(prose, ["box"]) == "First, go north. Then, open the box."
    assert detailed_goal("Have fun! Enjoy.", ["box"]) == "Have fun! Enjoy."
