"""Acting on a page and reading it, through the script ``page.js`` that runs in it before its own."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from importlib.resources import files
from typing import Any

from r2v_core.benchmarks.web.accessibility import HIDDEN, SHOWN, describe
from r2v_core.benchmarks.web.actions import Act
from r2v_core.benchmarks.web.chromium import Page

KEYS: dict[str, tuple[int, str]] = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "Backspace": (8, ""),
    "Delete": (46, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Home": (36, ""),
    "End": (35, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "Space": (32, " "),
}
"""Name of a key → its Windows key code, the text that it types. Besides these, any single letter or digit."""

Facts = Mapping[str, Mapping[str, Any]]
"""Id of an element that is shown → what can be done with it, as ``r2v.mark()`` says it."""


def script(*more: str) -> str:
    """``page.js`` and further scripts of benchmarks (``miniwob/page.js``), as one."""
    folder = files("r2v_core.benchmarks")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in ("web/page.js", *more))


def carry_out(page: Page, action: Act) -> str:
    """Do something to an element; '' or what is wrong."""
    if action.name == "noop":
        return ""
    if action.name == "press":
        return _press(page, action)
    name, arguments = {
        "fill": ("fill", action.arguments),
        "clear": ("fill", (action.bid, "")),
        "select_option": ("select", (action.bid, action.arguments[1:])),
    }.get(action.name, (action.name, (action.bid,)))
    return str(page.run(f"r2v.{name}(...{json.dumps(arguments)})"))


def _press(page: Page, action: Act) -> str:
    key = action.arguments[1]
    if key not in KEYS and not (len(key) == 1 and key.isascii() and key.isalnum()):
        return f"Unknown key '{key[:20]}'; known: {', '.join(KEYS)}, single letters and digits."
    problem = str(page.run(f"r2v.focus({json.dumps(action.bid)})"))
    if problem:
        return problem
    code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
    event = {"key": " " if key == "Space" else key, "windowsVirtualKeyCode": code}
    page.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
    page.call("Input.dispatchKeyEvent", type="keyUp", **event)
    return ""


def open_to(state: str, goal: str, facts: Facts) -> list[Act]:
    """Clicks, texts and options that the elements of an observation take.

    Texts to fill in are those that the goal quotes and its numbers, else the first short ones on the page.
    """
    texts = re.findall(r'"([^"]+)"|(\S*\d\S*)', goal) or re.findall(r"(?<= )'(\w[^']{0,19})'()", state)
    words = list(dict.fromkeys(quoted or number for quoted, number in texts))[:5]
    found = []
    for bid in SHOWN.findall(state):
        fact = facts.get(bid, {"clickable": False, "fillable": False, "options": None})
        found += [Act("click", (bid,))] if fact["clickable"] else []
        found += [Act("fill", (bid, word)) for word in words if fact["fillable"]]
        found += [Act("select_option", (bid, option)) for option in fact["options"] or ()]
    return found


def tree(page: Page, facts: Facts, hidden: Collection[str] = ()) -> str:
    """The page as text; elements whose ids are ``hidden`` are left out with everything in them."""
    bids: dict[int, str] = {}
    stack = [page.call("DOM.getDocument", depth=-1)["root"]]
    while stack:
        node = stack.pop()
        attributes = node.get("attributes", [])
        if "bid" in attributes[::2]:
            bid = attributes[2 * attributes[::2].index("bid") + 1]
            bids[node["backendNodeId"]] = HIDDEN if bid in hidden else bid
        stack += node.get("children", [])
    listening = frozenset(bid for bid, fact in facts.items() if fact["listening"])
    return describe(page.call("Accessibility.getFullAXTree")["nodes"], bids, listening)
