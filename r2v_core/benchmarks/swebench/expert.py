"""The expert of a SWE-bench workspace: it knows the reference patch and works towards it from whatever state it finds.

It opens the place of the next difference and edits it, one place at a time; where that would leave the tests failing,
because something else is changed, it takes that back first. It submits as soon as the hidden tests pass, whatever makes
them.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import islice

from r2v_core.benchmarks.actions import program
from r2v_core.benchmarks.swebench.actions import MOST_LINES, edit_action, read_action
from r2v_core.benchmarks.swebench.files import Entry, Overlay
from r2v_core.benchmarks.swebench.lines import key, lines_of, places
from r2v_core.benchmarks.swebench.runtime import Runtime
from r2v_core.benchmarks.swebench.work import Window, Workspace, act, entry, text_of
from r2v_core.digest import rng

NEAR = 2
"""Differences with at most so many equal lines between them are one edit."""
LONGEST_PLAN = 400
HARD_NEGATIVES = 3
"""Edits with a mistake, for each place."""

_MISTAKES = (
    ("==", "!="), ("!=", "=="), ("<", "<="), (">", ">="), (" and ", " or "), (" or ", " and "), ("True", "False"),
    ("False", "True"), (" not ", " "), (" is None", " is not None"), ("self.", ""), (" + ", " - "), (" - ", " + "),
    ("[0]", "[1]"), ("[-1]", "[0]"), (" in ", " not in "), ("min(", "max("), ("max(", "min("),
)  # fmt: skip


@dataclass(frozen=True)
class Move:
    """One action of the plan, and the workspace after it."""

    action: str
    after: Workspace
    opens: bool = False
    """Whether it only opens a file."""


def plan(runtime: Runtime, workspace: Workspace, resolved: Callable[[Overlay], bool]) -> list[Move]:
    """What is left to do before ``submit``: nothing where the hidden tests pass.

    Args:
        resolved: whether they pass on a workspace.
    """
    if resolved(workspace.overlay):
        return []
    return list(islice(_moves(runtime, workspace, resolved), LONGEST_PLAN))


def in_place(runtime: Runtime, overlay: Overlay) -> bool:
    """Whether the reference patch, and nothing else, is in the workspace."""
    gold = runtime.gold
    bare = Workspace(overlay)
    alone = all(name in gold.entries for name in overlay.tree)
    return alone and all(_towards(runtime, bare, path, gold.entries[path]) is None for path in gold)


def _moves(runtime: Runtime, workspace: Workspace, resolved: Callable[[Overlay], bool]) -> Iterator[Move]:
    gold = runtime.gold
    others = [name for name in workspace.overlay.tree if name not in gold.entries]
    if others and not resolved(workspace.overlay.placed(gold.entries)):
        for name in others:
            overlay = workspace.overlay.without(name)
            if overlay != workspace.overlay:
                workspace = replace(workspace, overlay=overlay)
                yield Move(f"undo {name}", workspace)
    for path in gold:
        while move := _towards(runtime, workspace, path, gold.entries[path]):
            workspace = move.after
            yield move


def _towards(runtime: Runtime, workspace: Workspace, path: str, goal: Entry) -> Move | None:
    """The next action at one path; None where it is as it has to be."""
    present, text = entry(runtime, workspace.overlay, path), text_of(runtime, workspace.overlay, path)
    if goal.data is None:
        return _removed(workspace, path, goal) if present != goal else None
    wished = goal.data.decode(errors="replace")
    if text is None or not lines_of(text) or wished.encode() != goal.data:
        if present.data == goal.data:
            return None
        if path in workspace.overlay.entries and runtime.read(path):
            return _undone(workspace, path)
        made = Workspace(workspace.overlay.placed({path: Entry(goal.data)}), Window(path, 1, 1))
        return _certain(runtime, workspace, f"create {path}\n{wished}".rstrip("\n"), path, goal.data, made)
    have, want = lines_of(text), lines_of(wished)
    place = next_place(have, want)
    if place is None:
        return None
    first, last, new = place
    seen = Window(path, max(first - 5, 1), min(last + 6, len(have), max(first - 5, 1) + MOST_LINES - 1))
    if not _in_sight(workspace.window, path, first + 1, min(last, seen.last)):
        opened = replace(workspace, window=seen)
        return Move(f"view {path} {seen.first}-{seen.last}", opened, opens=True)
    old = have[first:last]
    written = edit_action(path, _block(old), _block(new))
    whole = "".join(f"{line}\n" for line in [*have[:first], *new, *have[last:]])
    made = replace(workspace, overlay=workspace.overlay.placed({path: Entry(whole.encode(), present.executable)}))
    return _certain(runtime, workspace, written, path, whole.encode(), made)


def _removed(workspace: Workspace, path: str, goal: Entry) -> Move:
    made = replace(workspace, overlay=workspace.overlay.placed({path: goal}))
    command = f"rm -rf -- {shlex.quote(path)}"
    if goal.link is not None:
        command += f" && ln -s -- {shlex.quote(goal.link)} {shlex.quote(path)}"
    return Move(f"run {command}", made)


def _undone(workspace: Workspace, path: str) -> Move:
    return Move(f"undo {path}", replace(workspace, overlay=workspace.overlay.without(path)))


def _certain(runtime: Runtime, workspace: Workspace, action: str, path: str, data: bytes, made: Workspace) -> Move:
    """The action, if it survives being read as a model's reply is; else the same by a command."""
    wanted = read_action(action)
    if program(action) == action and not wanted.problem:
        effect = act(runtime, workspace, wanted)
        if effect.done:
            return Move(action, effect.after)
    packed = base64.b64encode(data).decode()
    return Move(f"run mkdir -p {shlex.quote(path.rpartition('/')[0] or '.')} && echo {packed} | base64 -d > "
                f"{shlex.quote(path)}", made)  # fmt: skip


def next_place(have: list[str], want: list[str]) -> tuple[int, int, list[str]] | None:
    """The first place where lines differ: ``have[first:last]`` has to become the third item; None where none does.

    The lines to replace occur once in ``have``; lines around them are added for that.
    """
    left, right = [key(line) for line in have], [key(line) for line in want]
    if left == right:
        return None
    matched = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    blocks = [block for block in matched if block[0] != "equal"]
    (_, i1, i2, j1, j2), *more = blocks
    while more and more[0][1] - i2 <= NEAR:
        (_, _, i2, _, j2), *more = more
    limit = more[0][1] if more else len(have)
    if i1 > 0:
        i1, j1 = i1 - 1, j1 - 1  # a line before it, so that an insertion has a place
    while i1 == i2 or len(places(have, have[i1:i2])) != 1:
        if i1 > 0:
            i1, j1 = i1 - 1, j1 - 1
        elif i2 < limit:
            i2, j2 = i2 + 1, j2 + 1
        else:
            return 0, len(have), want
    return i1, i2, want[j1:j2]


def _in_sight(window: Window | None, path: str, first: int, last: int) -> bool:
    return window is not None and window.path == path and window.first <= first and last <= window.last


def _block(lines: list[str]) -> str:
    return "".join(f"{line if line.strip() else ''}\n" for line in lines)


def hard_negatives(runtime: Runtime, moves: list[Move]) -> list[str]:
    """Edits like the plan's next one, each with one mistake in it; sorted, the same for the same place."""
    edit = next((move.action for move in moves if move.action.startswith("edit ")), "")
    if not edit:
        return []
    wanted = read_action(edit)
    kept = set(lines_of(wanted.old))
    found = set()
    for old, new in _MISTAKES:
        for match in re.finditer(re.escape(old), wanted.text):
            start = wanted.text.rfind("\n", 0, match.start()) + 1
            line = wanted.text[start:].partition("\n")[0]
            if line not in kept:  # one that the fix brings
                text = wanted.text[: match.start()] + new + wanted.text[match.end() :]
                found.add(edit_action(wanted.path, wanted.old, text))
    shorter = [line for line in lines_of(wanted.text) if line in kept]
    if shorter and shorter != lines_of(wanted.old):
        found.add(edit_action(wanted.path, wanted.old, "".join(f"{line}\n" for line in shorter)))
    usable = sorted(action for action in found if program(action) == action and action != edit)
    order = rng("swebench-slips", runtime.instance.instance_id, edit).permutation(len(usable)).tolist()
    return sorted(usable[i] for i in order[:HARD_NEGATIVES])
