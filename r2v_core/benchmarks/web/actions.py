"""Actions on a page, in BrowserGym's high-level syntax: one call on one line, for example ``fill('13', 'text')``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

MAX_ACTION = 500
"""Characters of an action; longer ones are refused, unless a benchmark allows more."""

ACTIONS: dict[str, tuple[int, str]] = {
    "click": (1, "click('12')"),
    "dblclick": (1, "dblclick('12')"),
    "hover": (1, "hover('12')"),
    "focus": (1, "focus('12')"),
    "fill": (2, "fill('12', 'text')"),
    "clear": (1, "clear('12')"),
    "select_option": (2, "select_option('12', 'option')"),
    "press": (2, "press('12', 'Enter')"),
    "noop": (0, "noop()"),
}
"""What can be done to the elements of a page: name → number of arguments (``select_option``: or more), an example. The
first argument is an element's id."""

BROWSING: dict[str, tuple[int, str]] = {
    **ACTIONS,
    "scroll": (1, "scroll('down')"),
    "goto": (1, "goto('address')"),
    "go_back": (0, "go_back()"),
    "go_forward": (0, "go_forward()"),
    "new_tab": (0, "new_tab()"),
    "tab_focus": (1, "tab_focus('1')"),
    "tab_close": (0, "tab_close()"),
    "stop": (1, "stop('answer')"),
}
"""The same and what else a browser can do; ``stop`` ends the episode with an answer, as in WebArena."""

_CALL = re.compile(r"([a-z_]+)\((.*)\)", re.DOTALL)
_ARGUMENT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+", re.DOTALL)
_ARGUMENTS = re.compile(rf"(?:(?:{_ARGUMENT.pattern})(?:\s*,\s*(?:{_ARGUMENT.pattern}))*)?", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Act:
    """A parsed action."""

    name: str
    arguments: tuple[str, ...] = ()

    @property
    def bid(self) -> str:
        """The id of the element that it is about, '' if none."""
        return self.arguments[0] if self.arguments and self.name in ACTIONS else ""

    @property
    def text(self) -> str:
        """The action as it is written."""
        quoted = ("'" + a.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'" for a in self.arguments)
        return f"{self.name}({', '.join(quoted)})"


def act(parts: Sequence[str]) -> Act:
    """The action of a list such as ``["fill", "13", "text"]``."""
    return Act(parts[0], tuple(parts[1:]))


def parse(
    action: str, actions: Mapping[str, tuple[int, str]] = MappingProxyType(ACTIONS), longest: int = MAX_ACTION
) -> Act | str:
    """The action that a text says, or one sentence that says what is wrong with it.

    Nothing is evaluated: a call's name and its quoted texts (or whole numbers) are read off, all else is refused.
    Lists are written as further arguments or in square brackets: ``select_option('14', ['a', 'b'])``.
    """
    action = action.strip().encode(errors="replace").decode()
    if len(action) > longest:
        return f"The action is longer than {longest} characters."
    call = _CALL.fullmatch(action)
    if call is None:
        return "Write one action, for example " + " or ".join(example for _, example in actions.values()) + "."
    name, inside = call.groups()
    if name not in actions:
        return f"Unknown action '{name}'; known: {', '.join(actions)}."
    count, example = actions[name]
    inside = _without_brackets(inside.strip()) if name == "select_option" else inside.strip()
    arguments = tuple(map(_unquoted, _ARGUMENT.findall(inside)))
    enough = len(arguments) == count or (name == "select_option" and len(arguments) > count)
    if not enough or not _ARGUMENTS.fullmatch(inside):
        return f"The arguments of '{name}' are wrong; write {example}."
    return Act(name, arguments)


def _without_brackets(inside: str) -> str:
    lists = re.fullmatch(r"(.*?,\s*)\[(.*)\]", inside, re.DOTALL)
    return lists[1] + lists[2] if lists else inside


def _unquoted(argument: str) -> str:
    if argument[0] not in "'\"":
        return argument
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], argument[1:-1])
