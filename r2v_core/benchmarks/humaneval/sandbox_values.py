"""Values that leave one box of HumanEval's and enter another: a Python literal in one line, parsed and never executed.

What the task's own tests would do to a value, they have to be able to do to what comes out here: compare it, take it
for true, count with it, run through it. So numbers of :mod:`fractions`, :mod:`decimal` and numpy stay what they are,
views of dictionaries stay views, and what is no data becomes an :class:`Opaque` that equals nothing, is as true as it
was and gives the items that it gave. What a program's class makes of ``==`` is left behind on purpose. Standard library
only, and sent to the boxes beside ``sandbox_worker.py``.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from collections import UserList, UserString, deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from importlib import import_module
from itertools import islice
from typing import Any

LONGEST = 10_000
"""Items of a generator or the like that are taken along; one with more has none."""
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
)
"""What makes of a subclass's value the plain one, whatever the subclass redefines."""
_NUMERIC = re.compile(r"[<>|=]?[biufcSU]\d+")
"""numpy's data types that hold plain values."""


class Opaque:
    """What is no data: equal to nothing but itself."""

    def __init__(self, true: bool | None = True, items: list[Any] | None = None) -> None:
        self.true = true
        self.items = items

    def __bool__(self) -> bool:
        if self.true is None:
            raise TypeError("it was neither true nor false")
        return self.true

    def __iter__(self) -> Iterator[Any]:
        if self.items is None:
            raise TypeError("it could not be run through")
        return iter(self.items)


def encode(value: Any) -> str:
    """A value as a literal in one line."""
    if value is None or isinstance(value, bool):
        return repr(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _numpy(value, numpy)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    if isinstance(value, complex):
        parts = (value.real, value.imag)
        finite = all(map(math.isfinite, parts))
        return repr(complex(*parts) + 0) if finite else f"complex({', '.join(map(encode, parts))})"  # no negative zeros
    for kind, exact in _EXACT:
        if isinstance(value, kind):
            return repr(exact(value))
    for kinds, written in _WRITTEN:
        if isinstance(value, kinds):
            return written(value)
    for module, name, written in _ELSEWHERE:
        found = getattr(sys.modules.get(module), name, None)
        if found is not None and isinstance(value, found):
            return written(value)
    return _opaque(value)


def decode(text: str) -> Any:
    """What :func:`encode` wrote; nothing is executed.

    Raises:
        ValueError, SyntaxError, KeyError, TypeError: for any other text.
    """
    return _value(ast.parse(text.strip(), mode="eval").body)


def _inside(values: Any) -> str:
    return ", ".join(map(encode, values))


def _pairs(mapping: Any) -> str:
    return "{" + ", ".join(f"{encode(key)}: {encode(value)}" for key, value in mapping.items()) + "}"


def _set(values: Any) -> str:
    return ", ".join(sorted(map(encode, values)))


def _called(name: str) -> Callable[[Any], str]:
    return lambda values: f"{name}([{_inside(values)}])"


_WRITTEN: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (dict, _pairs),
    (set, lambda value: "{" + _set(value) + "}" if value else "set()"),
    (frozenset, lambda value: f"frozenset([{_set(value)}])"),
    (list, lambda value: f"[{_inside(value)}]"),
    (tuple, lambda value: f"({_inside(value)},)" if value else "()"),
    (range, lambda value: f"range({value.start}, {value.stop}, {value.step})"),
    (deque, _called("deque")),
    (bytearray, lambda value: f"bytearray({bytes(value)!r})"),
    (memoryview, lambda value: repr(bytes(value))),
    (KeysView, _called("keys")),
    (ValuesView, _called("values")),
    (ItemsView, _called("items")),
    (Mapping, _pairs),
    (UserList, lambda value: f"[{_inside(value)}]"),
    (UserString, lambda value: repr(str(value))),
)
_ELSEWHERE: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("fractions", "Fraction", lambda value: f"Fraction({int(value.numerator)}, {int(value.denominator)})"),
    ("decimal", "Decimal", lambda value: f"Decimal({str(value)!r})"),
)
"""Module, class, how it is written: looked at where the program has imported the module."""


def _numpy(value: Any, numpy: Any) -> str:
    kind = value.dtype.str
    if isinstance(value, numpy.ndarray):
        known = kind == "|O" or _NUMERIC.fullmatch(kind)
        return f"array({kind!r}, {encode(value.tolist())})" if known else _opaque(value)
    plain = value.item()
    if isinstance(plain, numpy.generic):  # longer than Python's numbers
        plain = complex(plain) if kind[1] == "c" else float(plain)
    return f"scalar({kind!r}, {encode(plain)})" if _NUMERIC.fullmatch(kind) else _opaque(value)


def _opaque(value: Any) -> str:
    try:
        true: bool | None = bool(value)
    except Exception:
        true = None
    try:
        items = list(islice(iter(value), LONGEST + 1))
        told = f", [{_inside(items)}]" if len(items) <= LONGEST else ""
    except Exception:
        told = ""
    return f"Opaque({true}{told})"


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id == "set" and not node.args:
            return set()
        return _BUILT[node.func.id](*map(_value, node.args))
    if isinstance(node, ast.List):
        return list(map(_value, node.elts))
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    if isinstance(node, ast.Set):
        return set(map(_value, node.elts))
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return math.nan if isinstance(node, ast.Name) and node.id == "nan" else ast.literal_eval(node)


def _of(module: str, name: str) -> Callable[..., Any]:
    return lambda *arguments: getattr(import_module(module), name)(*arguments)


def _array(kind: str, values: Any) -> Any:
    if kind != "|O" and not _NUMERIC.fullmatch(kind):
        raise ValueError(kind)
    return import_module("numpy").array(values, dtype=kind)


_BUILT: dict[str, Callable[..., Any]] = {
    "Opaque": Opaque,
    "Fraction": _of("fractions", "Fraction"),
    "Decimal": _of("decimal", "Decimal"),
    "array": _array,
    "scalar": lambda kind, value: _array(kind, value)[()],
    "complex": complex,
    "frozenset": frozenset,
    "range": range,
    "deque": deque,
    "bytearray": bytearray,
    "keys": lambda items: dict.fromkeys(items).keys(),
    "values": lambda items: dict(enumerate(items)).values(),
    "items": lambda pairs: dict(pairs).items(),
}
"""The only names that a literal may call, on literals."""
