"""What a config key may be, in words: for messages about keys and values that are wrong."""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from r2v_core.config.former import former, former_key, former_leaves
from r2v_core.config.secrets import is_secret

_SHOWN = 80
"""Characters of a value that a message quotes."""


_OWN_WORDS = frozenset(
    {"value_error", "assertion_error", "too_short", "too_long", "string_too_short", "string_pattern_mismatch"}
    | {"union_tag_invalid", "union_tag_not_found", "json_invalid"}
)
"""Kinds of error that pydantic words better than the schema's type and bounds do."""


@cache
def schema_keys(model: type[BaseModel], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every dotted key below ``model`` (sections and leaves) with its JSON schema, references resolved."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    keys: dict[str, dict[str, Any]] = {}

    def walk(node: dict[str, Any], dotted: str) -> None:
        children = dict(node.get("properties", {}))
        names = _resolve(node.get("propertyNames", {}), definitions).get("enum", ())
        children |= dict.fromkeys(names, node.get("additionalProperties"))
        for name, child in children.items():
            path = f"{dotted}.{name}" if dotted else name
            keys[path] = _resolve(child, definitions)
            walk(keys[path], path)
        item = node.get("items") or {}
        for tag, reference in item.get("discriminator", {}).get("mapping", {}).items():
            walk(_resolve({"$ref": reference}, definitions), f"{dotted}[].{tag}")

    walk(schema, prefix)
    return keys


def explain(error: ValidationError, keys: dict[str, dict[str, Any]], prefix: str = "") -> dict[str, str]:
    """Dotted key → what is wrong with it, for every problem of a validation."""
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_context=False):
        dotted = dotted_key(detail, prefix)
        above = dotted.rpartition(".")[0]
        if dotted not in keys and "anyOf" in keys.get(above, {}):  # pydantic names the alternative it tried
            dotted = above
        if detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",):
            for leaf in former_leaves(dotted, detail["input"]):
                problems[leaf] = unknown_key(leaf, keys)
        elif detail["type"] == "missing":
            problems[dotted] = f"missing; expected {expected(keys.get(dotted, {}))}"
        elif (known := _generic(re.sub(r"\[\d+\]$", "", dotted))) in keys and detail["type"] not in _OWN_WORDS:
            node = keys[known] if known == _generic(dotted) else keys[known].get("items", {})
            meaning = node.get("description", "") if "properties" not in node else ""
            problems[dotted] = f"{shown(detail['input'])} is not possible; expected {expected(node)}" + (
                f" ({meaning})" if meaning else ""
            )
            if "properties" in node and dotted in former("keys"):
                problems[dotted] += f". As in the R2V scripts? Then {former('keys')[dotted].sentence()}"
        else:
            problems[dotted] = (
                f"{shown(detail['input'])} is not possible: {detail['msg'].removeprefix('Value error, ')}"
            )
    return problems


def dotted_key(detail: ErrorDetails, prefix: str = "") -> str:
    """The place of a validation error as the config's users write it: ``training.router.hidden[0]``."""
    text = prefix
    for part in detail["loc"]:
        if part != "[key]":
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: Any) -> str:
    """A value as a message quotes it, shortened; never what a secret's name stands for."""
    if isinstance(value, dict):
        value = {key: "…" if is_secret(str(key)) else item for key, item in value.items()}
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def unknown_key(dotted: str, keys: dict[str, dict[str, Any]]) -> str:
    """Say that a key is unknown, and which one may be meant: what it was in the R2V scripts, a sibling, or the same
    name in another section.
    """
    of_config = "training" in keys  # other schemas are explained here too
    if of_config and (known := former_key(dotted)) is not None:
        return f"a key of the R2V scripts; {known.sentence()}"
    parent, _, name = _generic(dotted).rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == parent}
    guesses = [siblings[close] for close in difflib.get_close_matches(name, siblings, n=1)]
    guesses += [key for key in keys if key.rpartition(".")[2] == name]
    if not guesses:
        names = {key.rpartition(".")[2]: key for key in keys}
        guesses = [names[close] for close in difflib.get_close_matches(name, names, n=1, cutoff=0.75)]
    if guesses:
        choices = " or ".join(f"'{key}'" for key in guesses[:5])
        return f"no such key. Did you mean {choices}?"
    if siblings:
        return f"no such key. Known{f' in {parent!r}' if parent else ''}: {', '.join(sorted(siblings))}."
    return f"no such key; '{parent}' has no keys below it" if parent in keys else "no such key"


def expected(node: dict[str, Any]) -> str:
    """A JSON schema in words, e.g. ``a number > 0 and ≤ 1``."""
    if "anyOf" in node:
        return " or ".join(expected(option) for option in node["anyOf"])
    choices = node.get("enum") or ([node["const"]] if "const" in node else [])
    if choices:
        return choices_text([str(choice) for choice in choices])
    kind = node.get("type")
    if kind == "array":
        return f"a list, each item {expected(node['items'])}" if node.get("items") else "a list"
    if kind == "object":
        return f"a section with the keys {', '.join(node['properties'])}" if node.get("properties") else "a mapping"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    words["null"] = "null"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = " and ".join(f"{sign} {node[bound]:g}" for bound, sign in bounds.items() if bound in node)
    text = words.get(str(kind), "another value")
    return f"{text} {limits}" if limits else text


def _generic(dotted: str) -> str:
    """A key with its list positions left open: ``mix[0].rooms`` is ``mix[].rooms``."""
    return re.sub(r"\[\d+\]", "[]", dotted)


def choices_text(choices: list[str]) -> str:
    """``one of a, b, c``."""
    return f"one of {', '.join(choices)}"


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema without references at its own level, its items' level and its alternatives' level."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"}
    if "items" in node:
        node = node | {"items": _resolve(node["items"], definitions)}
    if "anyOf" in node:
        node = node | {"anyOf": [_resolve(option, definitions) for option in node["anyOf"]]}
    return node
