"""The examples that a HumanEval problem shows: calls in its docstring with the value they should give.

Half of the problems write them as doctests, the others in some way of their own (``f(2) == 4``, ``f(2) ➞ 4``,
``f(2) returns 4``). What can't be read as a call on literals with a literal result is left out.
"""

from __future__ import annotations

import ast
import doctest
import re

Example = tuple[str, str]
"""(expression, expected literal)."""

_GIVES = re.compile(r"\s*(?:#\s*)?(?:==>|=>|==|=|->|➞|should return|returns?)\s*(.+)")
_SPELLED = {"true": "True", "false": "False"}


def examples(prompt: str, entry_point: str) -> list[Example]:
    """Every example of a prompt once, in order."""
    said = "\n".join(ast.get_docstring(node) or "" for node in _functions(prompt) if node.name == entry_point)
    found = [*_doctests(said), *_written(said, entry_point)]
    return list(dict.fromkeys(found))


def _functions(prompt: str) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)]


def _doctests(said: str) -> list[Example]:
    try:
        parsed = doctest.DocTestParser().get_examples(said)
    except ValueError:  # badly indented
        return []
    pairs = [(one.source.strip(), _literal(one.want)) for one in parsed]
    return [(source, want) for source, want in pairs if want is not None and _is_expression(source)]


def _written(said: str, entry_point: str) -> list[Example]:
    found = []
    for line in said.splitlines():
        for start in re.finditer(rf"\b{re.escape(entry_point)}\(", line):
            call = _call(line[start.start() :])
            gives = call and _GIVES.match(line[start.start() + len(call) :])
            want = _literal(gives[1]) if gives else None
            if call and want is not None:
                found.append((call, want))
    return found


def _call(text: str) -> str | None:
    """The call that ``text`` begins with, if its arguments are literals."""
    for end in (match.end() for match in re.finditer(r"\)", text)):
        try:
            call = ast.parse(text[:end], mode="eval").body
        except SyntaxError:
            continue
        if not isinstance(call, ast.Call) or call.keywords:
            return None
        return text[:end] if all(_literal(ast.unparse(argument)) is not None for argument in call.args) else None
    return None


def _literal(text: str) -> str | None:
    """The literal that ``text`` is, or that stands before a comment or a full stop."""
    for part in (text.strip(), text.partition("#")[0].strip(), text.partition(" (")[0].strip().rstrip(".")):
        part = _SPELLED.get(part, part)
        try:
            ast.literal_eval(part)
        except (ValueError, SyntaxError):
            continue
        return part
    return None


def _is_expression(source: str) -> bool:
    try:
        ast.parse(source, mode="eval")
    except SyntaxError:
        return False
    return True
