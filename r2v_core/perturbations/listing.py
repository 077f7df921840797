"""What operators do to a workspace that lists its files: an observation whose state has a part ``Files:``."""

from __future__ import annotations

import re

import numpy as np

from r2v_core.perturbations.common import pick

_LISTED = re.compile(r"^Files:\n((?:[^\n]+\n?)+)", re.MULTILINE)
_OPEN = re.compile(r"^Open: .+, lines \d+-\d+ of \d+:$", re.MULTILINE)

DECOYS = (
    "{folder}{stem}_old{suffix}",
    "{folder}{stem}_backup{suffix}",
    "{folder}{stem}2{suffix}",
    "{folder}legacy_{stem}{suffix}",
    "{folder}deprecated/{stem}{suffix}",
    "{folder}{stem}.orig{suffix}",
)
"""Names of files that do not exist, by what they resemble."""


def is_workspace(state: str) -> bool:
    """Whether a state is a workspace: it lists files or shows an open one."""
    return _LISTED.search(state) is not None or _OPEN.search(state) is not None


def decoys(state: str, draws: np.random.Generator) -> tuple[str, list[str]]:
    """With one to three files more in the list, each beside one that it resembles, and their names.

    Nothing is added where no list is shown, nor a file that is there.
    """
    found = _LISTED.search(state)
    if found is None:
        return state, []
    lines = found[1].splitlines()
    real = [line for line in lines if "/" in line or "." in line]
    added: list[str] = []
    for _ in range(int(draws.integers(1, 4)) if real else 0):
        model = pick(draws, real)
        folder, _, name = model.rpartition("/")
        stem, dot, suffix = name.rpartition(".")
        parts = {"folder": f"{folder}/" if folder else "", "stem": stem or name, "suffix": dot + suffix if stem else ""}
        fake = pick(draws, DECOYS).format(**parts)
        if fake not in lines:
            lines.insert(lines.index(model) + 1, fake)
            added.append(fake)
    end = "\n" if found[1].endswith("\n") else ""
    return state[: found.start(1)] + "\n".join(lines) + end + state[found.end(1) :], added
