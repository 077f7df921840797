"""A page as text: Chromium's accessibility tree, an element a line, children two spaces deeper.

    [3] textbox 'Username' value='ann' focused
    [5] button 'Login'
    text 'Forgot your password?'

Elements that can be acted on or stand for something have their id in brackets; bare text has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "-"
"""Id of elements that are left out with everything in them."""

TEXTS = ("StaticText",)
LEAVES = frozenset(["textbox", "searchbox", "spinbutton", "Date", "InputTime"])
"""Roles whose children only repeat their value."""

SILENT = frozenset([
    "RootWebArea", "generic", "none", "InlineTextBox", "LineBreak", "ListMarker", "LabelText", "paragraph",
    "LayoutTable", "LayoutTableRow", "LayoutTableCell", "rowgroup", "MenuListPopup",
])  # fmt: skip
"""Roles that say nothing by themselves: only their children are shown, unless the element listens to clicks."""

SHOWN = re.compile(r"^ *\[(\d+)\]", re.MULTILINE)
"""Ids of the elements in a tree's text."""

STATES = ("focused", "checked", "selected", "expanded", "disabled", "readonly", "pressed", "invalid")
"""Properties that are shown where they are set; ``checked=true`` is written ``checked``."""

FALSE_TOO = frozenset(["checked", "expanded"])
"""Properties that are shown as ``…=false``, too."""


def describe(nodes: list[Mapping[str, Any]], bids: Mapping[int, str], clickable: frozenset[str]) -> str:
    """The text of a tree as ``Accessibility.getFullAXTree`` gives it.

    Args:
        bids: DOM node (backend id) → id of the element.
        clickable: ids of elements that listen to clicks, shown whatever their role.
    """
    by_id = {node["nodeId"]: node for node in nodes}
    lines: list[str] = []

    def walk(node: Mapping[str, Any], depth: int, said: str) -> None:
        name = " ".join(str(node.get("name", {}).get("value") or "").split())
        role = str(node.get("role", {}).get("value") or "none")
        bid = bids.get(node.get("backendDOMNodeId", -1), "")
        if bid == HIDDEN:
            return
        if role in TEXTS:
            if name and name != said and bid not in clickable:
                lines.append(f"{'  ' * depth}text {quote(name)}")
            return
        shown = bool(bid) and (bid in clickable or not (node.get("ignored") or role in SILENT))
        if shown:
            if role in SILENT:
                role, name = "clickable", name or text_below(node)
            lines.append("  " * depth + " ".join([f"[{bid}]", role, *_details(node, role, name)]))
            depth, said = depth + 1, name
        for child in () if role in LEAVES else node.get("childIds", ()):
            if child in by_id:
                walk(by_id[child], depth, said)

    def text_below(node: Mapping[str, Any]) -> str:
        if node.get("role", {}).get("value") in TEXTS:
            return " ".join(str(node.get("name", {}).get("value") or "").split())
        parts = (text_below(by_id[child]) for child in node.get("childIds", ()) if child in by_id)
        return " ".join(filter(None, parts))

    roots = [node for node in nodes if "parentId" not in node]
    for root in roots:
        walk(root, 0, "")
    return "\n".join(lines)


def quote(text: str) -> str:
    """A text in quotes on one line."""
    line = " ".join(text.split())
    return f'"{line}"' if "'" in line else f"'{line}'"


def _details(node: Mapping[str, Any], role: str, name: str) -> list[str]:
    details = [quote(name)] if name else []
    value = node.get("value", {}).get("value")
    if value not in (None, "") and role not in ("option", "listitem"):
        details.append(f"value={quote(str(value))}")
    found = {item["name"]: item["value"].get("value") for item in node.get("properties", ())}
    for state in STATES:
        set_to = str(found.get(state, "false")).lower()
        if set_to not in ("false", "none", ""):
            details.append(state if set_to == "true" else f"{state}={set_to}")
        elif state in found and state in FALSE_TOO:
            details.append(f"{state}=false")
    return details
