"""A workspace as values: the repository as it was, and what is changed on top of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from r2v_core.digest import digest_of


@dataclass(frozen=True)
class Entry:
    """One path that differs from the repository: a file, a symbolic link, or nothing any more."""

    data: bytes | None
    """Content of a file; None for what is gone or a link."""
    executable: bool = False
    link: str | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing is there."""
        return self.data is None and self.link is None

    def wire(self) -> dict[str, Any] | None:
        """As the box's script takes it."""
        if self.link is not None:
            return {"link": self.link}
        if self.data is None:
            return None
        return {"data": base64.b64encode(self.data).decode(), "executable": self.executable}


GONE = Entry(None)


def from_wire(changes: Mapping[str, Any]) -> dict[str, Entry]:
    """Changes as the box's script tells them."""
    return {name: _entry(change) for name, change in changes.items()}


def _entry(change: Any) -> Entry:
    if change is None:
        return GONE
    if "link" in change:
        return Entry(None, link=change["link"])
    return Entry(base64.b64decode(change["data"]), bool(change["executable"]))


class Overlay:
    """Changes on top of a repository, never changed in place; equal ones are equal keys."""

    def __init__(self, entries: Mapping[str, Entry] | None = None) -> None:
        self.entries = dict(sorted((entries or {}).items()))
        self.digest = digest_of({name: entry.wire() for name, entry in self.entries.items()})

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overlay) and other.digest == self.digest

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def wire(self) -> dict[str, Any]:
        """As the box's script takes it."""
        return {name: entry.wire() for name, entry in self.entries.items()}

    @property
    def tree(self) -> Overlay:
        """Without what git keeps for itself: what a patch is made of."""
        return Overlay({name: entry for name, entry in self.entries.items() if ".git" not in name.split("/")})

    def with_(self, changes: Mapping[str, Entry]) -> Overlay:
        """These changes besides."""
        return Overlay({**self.entries, **changes})

    def placed(self, entries: Mapping[str, Entry]) -> Overlay:
        """These entries in the place of whatever stands there, above or below them."""
        overlay = self
        for name in entries:
            overlay = overlay.without(name)
        return overlay.with_(entries)

    def without(self, path: str) -> Overlay:
        """The repository's own state at ``path``, whatever stands there, above or below it."""
        kept = {
            name: entry
            for name, entry in self.entries.items()
            if name != path and not name.startswith(f"{path}/") and not (path.startswith(f"{name}/") and not entry.gone)
        }
        return Overlay(kept)
