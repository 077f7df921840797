"""Programs with one mistake each: a reference solution with an operator, a number or a statement changed.

They are what exploration tries and what the verifier learns to tell from right programs. Whether one is wrong is not
assumed: the hidden tests say so.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from r2v_core.benchmarks.humaneval.data import Problem
from r2v_core.digest import rng

HARD_NEGATIVES = 4
"""Programs a problem."""

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Div,
    ast.Div: ast.FloorDiv,
    ast.Mod: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def hard_negatives(problem: Problem) -> list[str]:
    """At most :data:`HARD_NEGATIVES` wrong programs, sorted; the same ones for the same problem."""
    lines = problem.solution.split("\n")
    found = sorted({text for text in _changed(problem.solution, lines) if text != problem.solution})
    order = rng("humaneval-slips", problem.task_id).permutation(len(found)).tolist()
    return sorted(found[i] for i in order[:HARD_NEGATIVES])


def _changed(source: str, lines: list[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        new = copy.deepcopy(node)
        if isinstance(new, ast.Compare) and type(new.ops[0]) in _SWAPPED:
            new.ops[0] = _SWAPPED[type(new.ops[0])]()  # type: ignore[call-overload]
        elif isinstance(new, (ast.BinOp, ast.BoolOp)) and type(new.op) in _SWAPPED:
            new.op = _SWAPPED[type(new.op)]()  # type: ignore[assignment]
        elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
            new.value = not new.value
        elif isinstance(new, ast.Constant) and isinstance(new.value, int):
            new.value += 1
        elif isinstance(new, ast.Return) and new.value is not None:
            new.value = ast.Constant(None)
        elif isinstance(new, (ast.AugAssign, ast.If)):
            yield _spliced(lines, node, "pass")
            continue
        else:
            continue
        text = ast.unparse(new)
        yield _spliced(lines, node, f"({text})" if isinstance(new, (ast.Compare, ast.BinOp, ast.BoolOp)) else text)


def _spliced(lines: list[str], node: ast.AST, text: str) -> str:
    """The source with ``text`` where ``node`` stands (columns count bytes of UTF-8)."""
    first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()  # type: ignore[attr-defined]
    joined = first[: node.col_offset] + text.encode() + last[node.end_col_offset :]  # type: ignore[attr-defined]
    return "\n".join([*lines[: node.lineno - 1], joined.decode(), *lines[node.end_lineno :]])  # type: ignore[attr-defined]
