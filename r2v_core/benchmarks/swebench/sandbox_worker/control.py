"""A control: the hidden tests, each made so that it has to fail. What passes then was not decided by the tests.

In every test function an equality that it asserts is asked for values of our own instead, which nothing real equals; a
function without one raises. A fix that turns failures into passes, answers in pytest's place, replaces ``unittest``'s
or Python's ways to fail, or returns objects that equal everything, passes the control too, and so gives itself away.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

_VALUES = "(object(), chr(0) + 'r2v', 0x5EED1E5, -0.5, [object()], (object(),), {object(): 1})"
_EQUALS_ONE = f"any(_value == _other for _value in [SIDE] for _other in {_VALUES})"
_LAST = """
if not _r2v_asked:
    import unittest as _unittest
    _ways = (
        ("assertTrue", (False,)), ("assertFalse", (True,)), ("assertEqual", (1, 2)), ("assertNotEqual", (1, 1)),
        ("assertIs", (1, None)), ("assertIsNone", (1,)), ("assertIn", (1, ())), ("assertRaises", (OSError, int)),
        ("fail", ()),
    )
    _failed = 0
    for _name, _given in _ways:
        try:
            getattr(_unittest.TestCase(), _name)(*_given)
        except AssertionError:
            _failed += 1
    try:
        assert [1] == [2]
    except AssertionError:
        _failed += 1
    if _failed == len(_ways) + 1:
        raise AssertionError("the control")
"""
_EXPECTS_FAILURE = re.compile(r"xfail|expectedFailure")
_OPAQUE = (ast.With, ast.AsyncWith, ast.Try, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
"""What a failed assertion may not get out of."""


class _Asking(ast.NodeTransformer):
    """Assertions of equality become ones that fail, unless a side equals everything."""

    def visit(self, node: ast.AST) -> ast.AST:
        return node if isinstance(node, _OPAQUE) else super().visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            return _asked("assert ASKED", [test.left, test.comparators[0]]) or node
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "assertEqual":
            return _asked(f"{ast.unparse(call.func)}(ASKED, True)", call.args[:2]) or node
        return node


def _asked(statement: str, sides: Sequence[ast.expr]) -> ast.stmt | None:
    """The statement about whether a side equals a value of ours; None where the test itself has one that does."""
    written = [ast.unparse(side) for side in sides]
    if len(written) != 2 or any("ANY" in side for side in written):
        return None
    equal = " or ".join(_EQUALS_ONE.replace("SIDE", side) for side in written)
    return ast.parse(statement.replace("ASKED", f"(_r2v_asked.append(1) or {equal})")).body[0]


def sabotage(root: Path, files: Iterable[str]) -> list[str]:
    """Change test files so that their tests have to fail.

    Returns:
        ``path::Class::test`` of each test that has to, but for those whose source speaks of expected failures.
    """
    found: list[str] = []
    for name in sorted(set(files)):
        path = root / name
        if not path.is_file() or path.suffix != ".py":
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        found += [f"{name}::{test}" for test in _sabotaged(tree.body, _marked(tree.body))]
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    return found


def _sabotaged(body: list[ast.stmt], expects: bool) -> list[str]:
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef):
            inside = expects or _marked(node.body) or any(map(_expects_failure, node.decorator_list))
            found += [f"{node.name}::{test}" for test in _sabotaged(node.body, inside)]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
            if not expects and not _expects_failure(node):
                found.append(node.name)
            begin, held = ast.parse(f"_r2v_asked = []\ntry:\n    pass\nfinally:\n{textwrap.indent(_LAST, '    ')}").body
            assert isinstance(held, ast.Try)
            asking = _Asking()
            held.body = [cast(ast.stmt, asking.visit(line)) for line in node.body]
            node.body = [begin, held]
    return found


def _marked(body: list[ast.stmt]) -> bool:
    """Whether marks for everything in a module or class speak of expected failures."""
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
        and _expects_failure(node)
        for node in body
    )


def _expects_failure(node: ast.AST) -> bool:
    return bool(_EXPECTS_FAILURE.search(ast.unparse(node)))
