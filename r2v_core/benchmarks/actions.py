"""From a language model's reply to an action: what a benchmark's actions look like as text."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from typing import Literal

from r2v_core.benchmarks.spoken import spoken

ActionForm = Literal["line", "code"]

_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def one_line(reply: str) -> str:
    """What the reply says, as one line, its words with single spaces between them."""
    return " ".join(spoken(reply)[0].split())


def code(reply: str) -> str:
    """The :func:`program` in what a reply says."""
    return program(spoken(reply)[0])


def program(text: str) -> str:
    """The program in a text: a fenced block (its end may be cut off), else all of it; line breaks are kept.

    Of several blocks it is the first, unless that one is Python without a definition that does anything (the task
    repeated, an example of use): then it is the first one with such a definition.
    """
    blocks = [textwrap.dedent(found[2]).strip() for found in _FENCED.finditer(text)]
    if not blocks:
        return textwrap.dedent(text).strip()
    if _defines(blocks[0]) is not False:
        return blocks[0]
    return next((block for block in blocks if _defines(block)), blocks[0])


def _defines(block: str) -> bool | None:
    """Whether a Python program defines a function or class that is more than a promise; None if it is not Python."""
    try:
        body = ast.parse(block).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    defined = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return any(not _is_promise(statement) for node in defined for statement in node.body)


def _is_promise(statement: ast.stmt) -> bool:
    """``pass``, an ellipsis or a docstring."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def normalise_action(text: str) -> str:
    """An action as it is compared with another: no case, quotes, outer punctuation or repeated spaces."""
    return " ".join(re.sub("[\"'`]", "", text.casefold()).split()).strip(" .!;:")


ACTION_FORMS: dict[ActionForm, Callable[[str], str]] = {"line": one_line, "code": code}
"""A benchmark's ``action_form`` → what makes an action of a reply."""


def headline(action: str) -> str:
    """An action in one line: itself, or its first line and an ellipsis."""
    first, more, _ = action.partition("\n")
    return f"{first} …" if more else first
