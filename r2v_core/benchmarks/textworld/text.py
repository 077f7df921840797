"""Text in and out of TextWorld's interpreter: short observations, safe commands. Pure functions on strings."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_COMMAND = 100
"""Characters of a command that are looked at; the interpreter's own limit is 198 bytes."""

VERBS = frozenset(
    [
        "go",
        "walk",
        "run",
        "enter",
        "north",
        "south",
        "east",
        "west",
        "n",
        "s",
        "e",
        "w",
        "look",
        "l",
        "inventory",
        "i",
        "inv",
        "examine",
        "x",
        "read",
        "check",
        "search",
        "take",
        "get",
        "pick",
        "carry",
        "hold",
        "remove",
        "drop",
        "discard",
        "put",
        "insert",
        "place",
        "open",
        "close",
        "shut",
        "lock",
        "unlock",
        "eat",
        "consume",
        "cook",
        "cut",
        "chop",
        "slice",
        "dice",
        "prepare",
        "wait",
        "z",
    ]
)
"""Verbs passed to the interpreter, here because others act on the game's machinery: ``undo``, ``restore`` or
``tw-trace-actions`` would part the interpreter's world from the tracked one."""

UNKNOWN_VERB = "That's not a verb I recognise."

_HEADER = re.compile(r"-= (.+?) =-")
_SEPARATORS = re.compile(r"[.,;:!?\"]|\b(?:then|and)\b")
_SCORE = re.compile(r"Your score has just gone .*")
_PROMPT = re.compile(r"\n>.*", re.DOTALL)
_END = re.compile(r"\*\*\* (?:The End|You lost!) \*\*\*.*", re.DOTALL)


def clean_command(action: str) -> str:
    """One command on one line: control and non-ASCII characters become spaces, lower case, single spaces.

    Only the first non-empty line counts, at most :data:`MAX_COMMAND` characters of it, up to anything that would start
    a second command ("then", "and", punctuation). A leading prompt sign (``>``) is dropped. May be empty.
    """
    lines = [line for line in action[: 10 * MAX_COMMAND].splitlines() if line.strip()]
    line = re.sub(r"[^\x20-\x7e]", " ", lines[0] if lines else "")
    line = line.strip().lstrip(">").lower()[:MAX_COMMAND]
    return " ".join(_SEPARATORS.split(line, maxsplit=1)[0].split())


def is_playable(command: str) -> bool:
    """Whether a cleaned command may go to the interpreter: non-empty and starting with one of :data:`VERBS`."""
    return command.split(" ", 1)[0] in VERBS


def squeeze(text: str) -> str:
    """Single spaces, no blank lines."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def mentions(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of ``words`` standing alone, in upper or lower case."""
    longest_first = sorted({word for word in words if word}, key=lambda word: (-len(word), word))
    return re.compile(r"\b(?:" + "|".join(re.escape(word) for word in longest_first) + r")\b", re.IGNORECASE)


def keep_sentences(text: str, pattern: re.Pattern[str]) -> str:
    """The sentences of ``text`` in which ``pattern`` is found, on one line; all of them if it is found in none."""
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(text.split()))
    return " ".join([sentence for sentence in sentences if pattern.search(sentence)] or sentences)


FACTS = ("north", "south", "east", "west", "exit", "door", "open", "opened", "closed", "locked")
"""Besides the names of things, words that make a sentence of a room's description worth keeping."""


def describe_state(description: str, inventory: str, facts: re.Pattern[str]) -> str:
    """Where the player is and what they carry: the room's name, its description, the inventory, a line each.

    Of the description, sentences in which ``facts`` is found stay; TextWorld's ornaments ("Isn't TextWorld just the
    best?") go.
    """
    header = _HEADER.search(description)
    body = keep_sentences(_HEADER.sub("", description, count=1), facts)
    return squeeze("\n".join([header.group(1) if header else "", body, inventory]))


def describe_feedback(feedback: str, inventory: str, command: str) -> str:
    """The interpreter's answer to ``command`` without what the state says anyway.

    A room's description becomes one sentence with its name, the end of the game ``You won!`` or ``You lost!``.
    """
    ending = "You won!" if "*** The End ***" in feedback else "You lost!" if "*** You lost! ***" in feedback else ""
    text = _END.sub("", _PROMPT.sub("", feedback))
    header = _HEADER.search(text)
    if header:
        arrival = "You look around the" if command in ("look", "l") else "You go to the"
        score = _SCORE.search(text, header.end())
        text = f"{text[: header.start()]}\n{arrival} {header.group(1)}.\n{score.group() if score else ''}"
    text = squeeze(text)
    if text and text == squeeze(inventory):
        text = "You check what you are carrying."
    return squeeze(f"{text}\n{ending}")
