"""YAML files as plain values, with the line of every key and without YAML's traps.

Differences from plain PyYAML: a key given twice is an error, ``1e-3`` is a number, a date is text, ``24:00:00`` is text
and not 86,400, ``0123`` is text and not 83, keys are text without dots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r2v_core.errors import R2VError


class _Loader(yaml.SafeLoader):
    """SafeLoader whose numbers are decimal or hexadecimal, and that knows no timestamps."""


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in ("timestamp", "int", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_EXPONENT = r"(?:[eE][-+]?\d+)"
_NUMBERS = {
    "int": r"[-+]?(?:0|[1-9][\d_]*|0x[\da-fA-F_]+)",
    "float": rf"[-+]?(?:(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*){_EXPONENT}?|\d[\d_]*{_EXPONENT}|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)",
}
for _name, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list("-+.0123456789"))


MOST_NODES = 200_000
"""Keys and values of one file, aliases written out; the largest of this project's files has some thousands."""
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its content and the 1-based line of each dotted key."""

    path: Path
    data: dict[str, Any]
    lines: dict[str, int]


def read_yaml(path: Path, shown: str | None = None, dots: bool = False) -> YamlFile:
    """Parse a YAML file that holds a mapping.

    Args:
        path: the file.
        shown: how messages name it; the path unless given.
        dots: allow dots in keys.

    Raises:
        R2VError: with file, line and column, for malformed YAML, a duplicate key, a key that is not plain text, or
            content that is not a mapping.
    """
    shown = shown or str(path)
    lines: dict[str, int] = {}
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return YamlFile(path, {}, {})
        try:
            _refuse_growth(node)
        except R2VError as error:
            raise R2VError(f"{shown}: {error}") from None
        if not isinstance(node, yaml.MappingNode):
            raise R2VError(f"{shown}: holds {_kind(node)}; a config is a mapping such as 'name: my-experiment'")
        _collect(node, "", lines, shown, dots)
        return YamlFile(path, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
        context = f" {error.context}" if error.context else ""
        raise R2VError(f"{place}: malformed YAML: {error.problem}{context}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise R2VError(f"{shown}: not a UTF-8 text file ({str(error).splitlines()[0]})") from error
    except RecursionError:
        raise R2VError(f"{shown}: malformed YAML: an alias contains itself, or nesting never ends") from None
    except OSError as error:
        raise R2VError(f"{shown}: can't read ({error.strerror})") from error


def parse_value(text: str) -> Any:
    """The value of an override or of an environment variable, read as YAML: ``3``, ``[a, b]``, ``null``, ``text``.

    Raises:
        yaml.YAMLError: if it is not YAML.
    """
    loader = _Loader(text)
    try:
        if (node := loader.get_single_node()) is None:
            return None
        _refuse_growth(node)
        return loader.construct_document(node)
    except R2VError as error:
        raise yaml.YAMLError(str(error)) from None
    except RecursionError:
        raise yaml.YAMLError("an alias contains itself, or nesting never ends") from None


def _refuse_growth(node: yaml.Node, left: int = MOST_NODES) -> int:
    """Count what a file comes to once its aliases are written out; how many more there may be.

    Raises:
        R2VError: if they are more than settings can mean, or for text that can't be written down again.
    """
    if left <= 0:
        raise R2VError(f"its aliases expand to more than {MOST_NODES:,} values; write fewer, without aliases")
    left -= 1
    if isinstance(node, yaml.ScalarNode) and (half := re.search("[\ud800-\udfff]", node.value)):
        raise R2VError(f"line {node.start_mark.line + 1} holds half of a character, {half[0]!a}; remove it")
    for item in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in item if isinstance(item, tuple) else (item,):
            left = _refuse_growth(part, left)
    return left


def _collect(node: yaml.Node, prefix: str, lines: dict[str, int], shown: str, dots: bool) -> None:
    """Record the line of every key below ``node`` and refuse keys that are doubled or not plain text."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _collect(item, f"{prefix}[{i}]", lines, shown, dots)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    merged = [value for key, value in node.value if key.tag == _MERGE]
    for source in merged:
        for item in source.value if isinstance(source, yaml.SequenceNode) else [source]:
            _collect(item, prefix, lines, shown, dots)
    for key, value in node.value:
        if key.tag == _MERGE:
            continue
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        place = f"{shown}:{line}:{column}"
        if key.tag != "tag:yaml.org,2002:str":
            raise R2VError(f"{place}: the key {_kind(key)} is not text; put it in quotes")
        if key.value in seen:
            raise R2VError(f"{place}: the key '{key.value}' was already given in line {seen[key.value]}; keep one")
        if "." in key.value and not dots:
            raise R2VError(f"{place}: write '{key.value}' as nested keys; dots are for command-line overrides")
        seen[key.value] = line
        dotted = f"{prefix}.{key.value}" if prefix else key.value
        lines[dotted] = line
        _collect(value, dotted, lines, shown, dots)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f"'{node.value}'"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
