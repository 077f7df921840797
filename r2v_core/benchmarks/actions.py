"""From a language model's reply to an action: what a benchmark's actions look like as text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Literal

ActionForm = Literal["line", "code"]

_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def one_line(reply: str) -> str:
    """The whole reply as one line, its words with single spaces between them."""
    return " ".join(reply.split())


def code(reply: str) -> str:
    """The first fenced block of a reply (its end may be cut off), else all of it; line breaks and indentation kept."""
    found = _FENCED.search(reply)
    return textwrap.dedent(found[2] if found else reply).strip()


ACTION_FORMS: dict[ActionForm, Callable[[str], str]] = {"line": one_line, "code": code}
"""A benchmark's ``action_form`` → what makes an action of a reply."""


def headline(action: str) -> str:
    """An action in one line: itself, or its first line and an ellipsis."""
    first, more, _ = action.partition("\n")
    return f"{first} …" if more else first
