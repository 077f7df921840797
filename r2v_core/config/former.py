"""What people who come from the R2V scripts write, and what they mean here: the table ``r2v_scripts.yaml``, in words.

``python -m r2v_core.config.former`` prints it as the Markdown tables of docs/coming-from-r2v-scripts.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from r2v_core.config.yamlfile import read_yaml
from r2v_core.console import say

TABLE = Path(__file__).with_name("r2v_scripts.yaml")
TITLES = {
    "scripts": ("Script", "Here"),
    "options": ("Option", "Here"),
    "keys": ("Config key", "Here"),
    "files": ("File", "Here"),
    "python": ("Python", "Here"),
}
"""Part of the table → heads of its two columns."""


@dataclass(frozen=True)
class Former:
    """One thing of the R2V scripts."""

    here: tuple[str, ...] = ()
    """What it is called here; empty where there is no such thing."""
    note: str = ""

    def sentence(self, quote: str = "'") -> str:
        """What to write instead: ``write 'slm.model'``, the note besides, or the note alone."""
        names = [f"{quote}{name}{quote}" for name in self.here]
        choice = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        return ": ".join(text for text in (f"write {choice}" if choice else "", self.note) if text)


@cache
def former(part: str) -> dict[str, Former]:
    """One part of the table ('scripts', 'options', 'keys', 'files', 'python'), in file order."""
    return {name: _entry(value) for name, value in read_yaml(TABLE, dots=True).data[part].items()}


def former_key(dotted: str) -> Former | None:
    """What a config key of the R2V scripts is here: its own line, or that of the nearest section around it."""
    keys, above = former("keys"), dotted
    if dotted in keys:
        return keys[dotted]
    while above and f"{above}.*" not in keys:
        above = above.rpartition(".")[0]
    return keys.get(f"{above}.*")


def former_leaves(dotted: str, value: Any) -> list[str]:
    """The keys below an unknown one that the R2V scripts know, where there are any, else the key itself."""
    if isinstance(value, dict) and value and any(key.startswith(f"{dotted}.") for key in former("keys")):
        return [leaf for name, item in value.items() for leaf in former_leaves(f"{dotted}.{name}", item)]
    return [dotted]


def markdown(part: str) -> str:
    """One part of the table for the documentation."""
    head = TITLES[part]
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    for name, entry in former(part).items():
        here = ", ".join(f"`{text}`" for text in entry.here)
        meaning = ": ".join(text for text in (here, entry.note) if text).replace("|", "\\|")
        names = ", ".join(f"`{each}`" for each in name.split(", "))
        lines.append(f"| {names} | {meaning} |")
    return "\n".join(lines)


def _entry(value: list[str] | dict[str, Any]) -> Former:
    if isinstance(value, list):
        return Former(tuple(value))
    return Former(tuple(value.get("here", ())), value.get("note", ""))


if __name__ == "__main__":
    for name in TITLES:
        say(f"## {name}\n\n{markdown(name)}\n")
