"""``configs/base.yaml`` as the schema makes it: every key with its default, and its meaning as a comment.

``python -m r2v_core.config.basefile`` prints it; ``make base-config`` writes it.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from r2v_core.config.explain import choices_text, schema_keys
from r2v_core.config.schema import Config
from r2v_core.config.yamlfile import parse_value
from r2v_core.console import say

_WIDTH = 120
"""Characters in a line. A comment that doesn't fit beside its key stands above it."""

_HEAD = """\
# Every key with its default, its unit and its meaning. Other configs inherit from this one (`defaults: [base]`) and
# say only what they change. Written from the sections in r2v_core/config/sections by `make base-config`: change a key,
# its default or its comment there. A key that occurs again has its comment where it occurs first.
"""


def base_yaml() -> str:
    """The text of ``configs/base.yaml``."""
    said: set[tuple[str, str]] = set()
    lines = [_HEAD]
    for dotted, node, value in _keys():
        *above, name = dotted.split(".")
        comment = _comment(node)
        if (name, comment) in said:
            comment = ""
        said.add((name, comment))
        if not above and isinstance(value, dict):
            lines.append("")
        lines += _entry("  " * len(above), f"{name}:{_value(value)}", comment)
    return "\n".join(lines) + "\n"


def _keys() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Every dotted key of the config, sections too, with its JSON schema and its default."""
    defaults = Config().model_dump(mode="json")
    for dotted, node in schema_keys(Config).items():
        value: Any = defaults
        for name in dotted.split("."):
            value = value[name]
        yield dotted, node, value


def _comment(node: dict[str, Any]) -> str:
    """What the schema says of a key, preceded by the choices that it has but doesn't mention."""
    meaning = " ".join(node.get("description", "").split()).removesuffix(".")
    if "properties" in node:
        return meaning[0].lower() + meaning[1:]
    choices = [str(choice) for choice in node.get("enum", ())]
    if all(re.search(rf"\b{re.escape(choice)}\b", meaning) for choice in choices):
        return meaning
    return f"{choices_text(choices)}; {meaning}"


def _entry(indent: str, entry: str, comment: str) -> list[str]:
    """A key and its comment: in one line where both fit."""
    line = f"{indent}{entry} # {comment}" if comment else f"{indent}{entry}"
    if len(line) <= _WIDTH:
        return [line]
    mark = f"{indent}# "
    return [*textwrap.wrap(comment, _WIDTH, initial_indent=mark, subsequent_indent=mark), f"{indent}{entry}"]


def _value(value: Any) -> str:
    """A default as YAML, with the space that separates it from its key; nothing for a section."""
    if isinstance(value, dict) and value:
        return ""
    if isinstance(value, list):
        return f" [{', '.join(_value(item).strip() for item in value)}]"
    if isinstance(value, str) and parse_value(value) == value:
        return f" {value}"
    return f" {json.dumps(value)}"


if __name__ == "__main__":
    say(base_yaml().rstrip())
