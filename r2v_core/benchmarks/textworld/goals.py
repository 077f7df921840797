"""What a TextWorld task is told to do: TextWorld's own prose with the small talk removed, or one short sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from r2v_core.benchmarks.textworld.text import keep_sentences, mentions

DIRECTIONS = ("north", "south", "east", "west")

_ENDS: tuple[tuple[str, str], ...] = (
    (r"take (?P<a>.+?)(?: from .+)?", "Find and take the {a}."),
    (r"put (?P<a>.+?) on (?P<b>.+)", "Put the {a} on the {b}."),
    (r"insert (?P<a>.+?) into (?P<b>.+)", "Put the {a} into the {b}."),
    (r"(?P<v>lock|unlock) (?P<a>.+?) with .+", "{v} the {a}."),
    (r"drop (?P<a>.+)", "Leave the {a} on the floor of the {room}."),
    (r"(?P<v>\w+) (?P<a>.+)", "{v} the {a}."),
)


def brief_goal(command: str, room: str) -> str:
    """The end state that ``command``, the last one of a plan carried out in ``room``, brings about.

    >>> brief_goal("take coin from chest", "attic")
    'Find and take the coin.'
    """
    for pattern, sentence in _ENDS:
        if match := re.fullmatch(pattern, command):
            text = sentence.format(**match.groupdict(), room=room)
            return text[0].upper() + text[1:]
    return command[0].upper() + command[1:] + "."


def detailed_goal(prose: str, names: Iterable[str]) -> str:
    """TextWorld's objective without greetings and farewells.

    A sentence stays if it names a direction or one of the game's ``names``; if none does, all stay.
    """
    return keep_sentences(prose, mentions([*names, *DIRECTIONS]))


def recipe_goal(plan: Sequence[str]) -> str:
    """A cooking game's plan as a goal: the work of its commands, walking and opening left out."""
    verbs = ("take", "cook", "chop", "slice", "dice", "prepare", "eat")
    work = [command for command in plan if command.split()[0] in verbs]
    return f"Make a meal in the kitchen: {', '.join(work)}."
