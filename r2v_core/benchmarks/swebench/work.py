"""What an action does to a workspace: pure functions of a room, a workspace and the wanted action."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from r2v_core.benchmarks.swebench.actions import MOST_LINES, Wanted
from r2v_core.benchmarks.swebench.files import Entry, Overlay
from r2v_core.benchmarks.swebench.rooms import Room

LISTED = 40
"""Files named where no file is open."""
WIDEST = 6000
"""Characters of an open file that are shown at most."""
AROUND = 8
"""Lines shown before and after an edit."""
OUTPUT = 4000
"""Characters shown of what a command printed: half of them from its beginning, half from its end."""


@dataclass(frozen=True)
class Window:
    """The lines of a file that are in sight, counted from 1, both ends included."""

    path: str
    first: int
    last: int


@dataclass(frozen=True)
class Workspace:
    """All that an agent's actions change."""

    overlay: Overlay = field(default_factory=Overlay)
    window: Window | None = None


@dataclass(frozen=True)
class Effect:
    """What came of an action."""

    feedback: str
    after: Workspace
    done: bool = True
    """Whether it was carried out."""


def entry(room: Room, overlay: Overlay, path: str) -> Entry:
    """What stands at a path now."""
    if path in overlay.entries:
        return overlay.entries[path]
    return Entry(room.read(path))


def text_of(room: Room, overlay: Overlay, path: str) -> str | None:
    """A file's text; None where there is no file, or one that is no text."""
    data = entry(room, overlay, path).data
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def lines_of(text: str) -> list[str]:
    """Lines without their ends."""
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def key(line: str) -> str:
    """What lines are compared by: what is after the last visible character does not count."""
    return line.rstrip()


def places(lines: list[str], block: list[str]) -> list[int]:
    """Where a block of lines begins."""
    have, want = [key(line) for line in lines], [key(line) for line in block]
    starts = [i for i, line in enumerate(have) if line == want[0]] if want else []
    return [i for i in starts if have[i : i + len(want)] == want]


def act(room: Room, workspace: Workspace, wanted: Wanted) -> Effect:
    """Carry out an action that is not ``submit``."""
    if wanted.problem:
        return Effect(f"Not done: {wanted.problem}.", workspace, done=False)
    return {"run": _run, "view": _view, "edit": _edit, "create": _create, "undo": _undo}[wanted.kind](
        room, workspace, wanted
    )


def _run(room: Room, workspace: Workspace, wanted: Wanted) -> Effect:
    ran = room.shell(workspace.overlay, wanted.text)
    if ran.problem:
        told_ = f"Nothing of it was kept: {ran.problem}.\n{shortened(ran.output)}".rstrip()
        return Effect(told_, workspace, done=False)
    status = f"Stopped after {room.where.command_s} s." if ran.status is None else f"Exit status {ran.status}."
    return Effect(f"{status}\n{shortened(ran.output)}".rstrip(), replace(workspace, overlay=ran.overlay))


def _view(room: Room, workspace: Workspace, wanted: Wanted) -> Effect:
    text = text_of(room, workspace.overlay, wanted.path)
    if text is None:
        return Effect(_no_file(room, workspace, wanted.path), workspace, done=False)
    count = max(len(lines_of(text)), 1)
    if wanted.first > count:
        return Effect(f"Not done: {wanted.path} has {count} lines.", workspace, done=False)
    last = min(wanted.last, count, wanted.first + MOST_LINES - 1)
    return Effect("Opened.", replace(workspace, window=Window(wanted.path, wanted.first, last)))


def _edit(room: Room, workspace: Workspace, wanted: Wanted) -> Effect:
    text = text_of(room, workspace.overlay, wanted.path)
    if text is None:
        return Effect(_no_file(room, workspace, wanted.path), workspace, done=False)
    lines, old, new = lines_of(text), lines_of(wanted.old), lines_of(wanted.text)
    if not wanted.old:
        return Effect("Not done: an edit needs at least one line to replace.", workspace, done=False)
    found = places(lines, old)
    if len(found) != 1:
        told = "are not in" if not found else f"are {len(found)} times in"
        more = "copy them as they are" if not found else "add lines around them"
        return Effect(f"Not done: these lines {told} {wanted.path}; {more}.", workspace, done=False)
    (at,) = found
    end = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    written = "".join(f"{line}{end}" for line in [*lines[:at], *new, *lines[at + len(old) :]])
    window = Window(wanted.path, max(at + 1 - AROUND, 1), at + len(new) + AROUND)
    return _written(room, workspace, wanted.path, written, window, "Edited.")


def _create(room: Room, workspace: Workspace, wanted: Wanted) -> Effect:
    folders = wanted.path.split("/")
    above = ["/".join(folders[:i]) for i in range(1, len(folders))]
    if any(not (one := entry(room, workspace.overlay, path)).gone or one.link for path in above):
        return Effect(f"Not done: a part of the path {wanted.path} is a file.", workspace, done=False)
    if _is_folder(room, workspace.overlay, wanted.path):
        return Effect(f"Not done: {wanted.path} is a folder.", workspace, done=False)
    window = Window(wanted.path, 1, max(min(len(lines_of(wanted.text)), MOST_LINES), 1))
    return _written(room, workspace, wanted.path, wanted.text, window, "Written.")


def _written(room: Room, workspace: Workspace, path: str, text: str, window: Window, said: str) -> Effect:
    executable = entry(room, workspace.overlay, path).executable
    data = text.encode()
    overlay = workspace.overlay.without(path)
    if room.read(path) != data:
        overlay = overlay.with_({path: Entry(data, executable)})
    last = min(window.last, max(len(lines_of(text)), 1))
    return Effect(said, Workspace(overlay, replace(window, last=max(last, window.first))))


def _undo(room: Room, workspace: Workspace, wanted: Wanted) -> Effect:
    overlay = workspace.overlay.without(wanted.path)
    if overlay == workspace.overlay:
        return Effect(f"Not done: nothing is changed at {wanted.path}.", workspace, done=False)
    return Effect("It is as it was.", replace(workspace, overlay=overlay))


def _is_folder(room: Room, overlay: Overlay, path: str) -> bool:
    below = f"{path}/"
    kept = any(name.startswith(below) and name not in overlay.entries for name in room.names)
    return kept or any(name.startswith(below) and not one.gone for name, one in overlay.entries.items())


def _no_file(room: Room, workspace: Workspace, path: str) -> str:
    if entry(room, workspace.overlay, path).data is not None:
        return f"Not done: {path} is no text."
    name = path.rsplit("/", 1)[-1]
    alike = [one for one in present(room, workspace.overlay) if one.rsplit("/", 1)[-1] == name][:3]
    return f"Not done: there is no file {path}" + (f"; there is {', '.join(alike)}." if alike else ".")


def present(room: Room, overlay: Overlay) -> list[str]:
    """All files that are there, sorted; git's own left out."""
    names = {name for name in room.names if name not in overlay.entries}
    return sorted(names | {name for name, one in overlay.tree.entries.items() if not one.gone})


def shortened(text: str) -> str:
    """Beginning and end of an output, with a notice of what is left out."""
    text = text.rstrip()
    if len(text) <= OUTPUT:
        return text
    half = OUTPUT // 2
    return f"{text[:half]}\n[… {len(text) - OUTPUT} characters left out …]\n{text[-half:]}"


def told(room: Room, workspace: Workspace) -> str:
    """The workspace as the agent reads it: what is changed, and the open file or the names of files."""
    changed = [f"{name}{' (gone)' if one.gone else ''}" for name, one in workspace.overlay.tree.entries.items()]
    more = f" and {len(changed) - 20} more" if len(changed) > 20 else ""
    head = f"Changed: {', '.join(changed[:20])}{more}." if changed else "Nothing is changed yet."
    window = workspace.window
    text = text_of(room, workspace.overlay, window.path) if window else None
    if window is None or text is None:
        names = sorted(present(room, workspace.overlay), key=lambda name: (not name.endswith(".py"), name))
        rest = f"\n… and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return head + "\nFiles:\n" + "\n".join(names[:LISTED]) + rest
    lines = lines_of(text)
    last = min(window.last, len(lines))
    shown = "\n".join(lines[window.first - 1 : last])
    if len(shown) > WIDEST:
        shown = f"{shown[:WIDEST]}\n[… {len(shown) - WIDEST} characters left out …]"
    return f"{head}\nOpen: {window.path}, lines {window.first}-{last} of {len(lines)}:\n{shown}"
