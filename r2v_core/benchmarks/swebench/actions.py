"""What an agent can say in a SWE-bench workspace, and what it means."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from r2v_core.benchmarks.actions import program

OLD, NEW, STOP = "<<<< old", "==== new", ">>>> end"
LONGEST = 40_000
"""Characters of the longest action taken."""
MOST_LINES = 120
"""Lines that a view opens at most."""
USUAL_LINES = 40
"""Lines that it opens where no range is given."""

HELP = {
    "": "reply with one of: run COMMAND, view PATH FIRST-LAST, edit PATH, create PATH, undo PATH, submit",
    "run": "run needs a shell command after it",
    "view": "view needs a path, and may have a range of lines: view PATH FIRST-LAST",
    "edit": f"after 'edit PATH' come, on lines of their own, '{OLD}', lines of the file, '{NEW}', what takes their "
    f"place, '{STOP}'",
    "create": "create needs a path, and the file's text on the lines after it",
    "undo": "undo needs a path",
    "path": "a path is relative to the repository and stays inside it, outside of .git",
    "text": f"an action is text of at most {LONGEST} characters",
}
"""Why an action was not taken, by where it went wrong."""

_RANGE = re.compile(r"(\d{1,7})(?:\s*[-–:, ]\s*(\d{1,7}))?$")


@dataclass(frozen=True)
class Wanted:
    """An action that was understood, or ``problem``, why not."""

    kind: str = ""
    path: str = ""
    text: str = ""
    """The command, or the content of a new file, or the lines that an edit puts in place."""
    old: str = ""
    """The lines that an edit replaces."""
    first: int = 0
    last: int = 0
    problem: str = ""


def read_action(action: str) -> Wanted:
    """What an action asks for."""
    text = program(action)
    if len(text) > LONGEST or not _is_text(text):
        return Wanted(problem=HELP["text"])
    line, _, rest = text.partition("\n")
    verb, _, argument = line.strip().partition(" ")
    verb, argument = verb.lower(), argument.strip()
    if verb.rstrip(".") == "submit" and not argument and not rest.strip():
        return Wanted("submit")
    if verb == "run":
        command = f"{argument}\n{rest}".strip()
        return Wanted("run", text=command) if command else Wanted(problem=HELP["run"])
    if verb not in ("view", "edit", "create", "undo"):
        return Wanted(problem=HELP[""])
    if verb == "view":
        return _view(argument) if not rest.strip() else Wanted(problem=HELP["view"])
    path = _path(argument)
    if not argument or (verb == "undo" and rest.strip()):
        return Wanted(problem=HELP[verb])
    if not path:
        return Wanted(problem=HELP["path"])
    if verb == "edit":
        return _edit(path, rest)
    return Wanted(verb, path, text=f"{rest}\n" if rest else "")


def _view(argument: str) -> Wanted:
    name, _, lines = argument.partition(" ")
    path, lines = _path(name), lines.strip()
    if not name or (lines and not _RANGE.match(lines)):
        return Wanted(problem=HELP["view"])
    if not path:
        return Wanted(problem=HELP["path"])
    if not lines:
        return Wanted("view", path, first=1, last=USUAL_LINES)
    first, last = _RANGE.match(lines).groups()  # type: ignore[union-attr]
    start = max(int(first), 1)
    return Wanted("view", path, first=start, last=max(int(last), start) if last else start + USUAL_LINES - 1)


def _edit(path: str, rest: str) -> Wanted:
    lines = rest.split("\n")
    places = [i for i, line in enumerate(lines) if line.rstrip() in (OLD, NEW, STOP)]
    found = [lines[i].rstrip() for i in places]
    if found != [OLD, NEW, STOP] or places[0] != 0 or places[2] != len(lines) - 1:
        return Wanted(problem=HELP["edit"])
    old, new = lines[1 : places[1]], lines[places[1] + 1 : places[2]]
    return Wanted("edit", path, text="".join(f"{line}\n" for line in new), old="".join(f"{line}\n" for line in old))


def edit_action(path: str, old: str, new: str) -> str:
    """The text of an edit; ``old`` and ``new`` are whole lines."""
    return f"edit {path}\n{OLD}\n{old}{NEW}\n{new}{STOP}"


def _path(text: str) -> str:
    """A path inside the repository as git writes it; nothing where it is none."""
    path = posixpath.normpath(text.strip("\"'`"))
    folders = path.split("/")
    if path in ("", ".") or path.startswith("/") or ".." in folders or ".git" in folders or len(path) > 1000:
        return ""
    return path if max(map(len, folders)) < 250 and path.isprintable() else ""


def _is_text(text: str) -> bool:
    try:
        return "\0" not in text and bool(text.encode() or not text)
    except UnicodeEncodeError:
        return False
