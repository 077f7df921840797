"""What operators do to lists: of files, in a workspace (its state has a part ``Files:``), and of results."""

from __future__ import annotations

import re
from itertools import groupby

import numpy as np

from r2v_core.perturbations.common import how_many, pick

_LISTED = re.compile(r"^Files:\n((?:[^\n]+\n?)+)", re.MULTILINE)
_ENTRY = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)]|\[[^\]\n]*\])\s+\S")
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


def lose_entries(text: str, share: float, draws: np.random.Generator) -> tuple[str, int]:
    """Each list's entries in another order, a random ``share`` of them missing, never all; and the number missing.

    A list is two or more lines in a row that begin with a bullet, a number or something in brackets, or a workspace's
    files.
    """
    lines = text.splitlines(keepends=True)
    lost = 0
    for start, end in reversed(_lists(lines)):
        ends = [line[len(line.rstrip("\r\n")) :] for line in lines[start:end]]
        n = min(how_many(share, end - start), end - start - 1)
        kept = draws.permutation(end - start)[n:].tolist()
        if kept == sorted(kept):
            kept = kept[1:] + kept[:1]
        entries = [lines[start + i].rstrip("\r\n") for i in kept]
        lines[start:end] = [entry + ending for entry, ending in zip(entries, ends[n:], strict=True)]
        lost += n
    return "".join(lines), lost


def _lists(lines: list[str]) -> list[tuple[int, int]]:
    """Where lists of two or more entries begin and end."""
    inside, files = [], False
    for line in lines:
        files = line.rstrip() == "Files:" or (files and bool(line.strip()))
        inside.append((files and line.rstrip() != "Files:") or _ENTRY.match(line) is not None)
    runs = (list(run) for entry, run in groupby(range(len(lines)), inside.__getitem__) if entry)
    return [(run[0], run[-1] + 1) for run in runs if len(run) >= 2]
