"""What an action does to a workspace: pure functions of a runtime, a workspace and the wanted action."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from r2v_core.benchmarks.swebench.actions import MOST_LINES, Wanted
from r2v_core.benchmarks.swebench.files import Entry, Overlay
from r2v_core.benchmarks.swebench.lines import decoded, lines_of, places, replaced, shown
from r2v_core.benchmarks.swebench.runtime import Runtime

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


def entry(runtime: Runtime, overlay: Overlay, path: str) -> Entry:
    """What stands at a path now."""
    if path in overlay.entries:
        return overlay.entries[path]
    return Entry(runtime.read(path))


def text_of(runtime: Runtime, overlay: Overlay, path: str) -> str | None:
    """A file's text as it is shown; None where there is no file, or one that is no text."""
    data = entry(runtime, overlay, path).data
    text = None if data is None else decoded(data)
    return None if text is None else shown(text)


def act(runtime: Runtime, workspace: Workspace, wanted: Wanted) -> Effect:
    """Carry out an action that is not ``submit``."""
    if wanted.problem:
        return Effect(f"Not done: {wanted.problem}.", workspace, done=False)
    return {"run": _run, "view": _view, "edit": _edit, "create": _create, "undo": _undo}[wanted.kind](
        runtime, workspace, wanted
    )


def _run(runtime: Runtime, workspace: Workspace, wanted: Wanted) -> Effect:
    ran = runtime.shell(workspace.overlay, wanted.text)
    if ran.problem:
        told_ = f"Nothing of it was kept: {ran.problem}.\n{shortened(ran.output)}".rstrip()
        return Effect(told_, workspace, done=False)
    status = f"Stopped after {runtime.where.command_s} s." if ran.status is None else f"Exit status {ran.status}."
    return Effect(f"{status}\n{shortened(ran.output)}".rstrip(), replace(workspace, overlay=ran.overlay))


def _view(runtime: Runtime, workspace: Workspace, wanted: Wanted) -> Effect:
    text = text_of(runtime, workspace.overlay, wanted.path)
    if text is None:
        return Effect(_no_file(runtime, workspace, wanted.path), workspace, done=False)
    count = max(len(lines_of(text)), 1)
    if wanted.first > count:
        return Effect(f"Not done: {wanted.path} has {count} lines.", workspace, done=False)
    last = min(wanted.last, count, wanted.first + MOST_LINES - 1)
    return Effect("Opened.", replace(workspace, window=Window(wanted.path, wanted.first, last)))


def _edit(runtime: Runtime, workspace: Workspace, wanted: Wanted) -> Effect:
    text = text_of(runtime, workspace.overlay, wanted.path)
    if text is None:
        return Effect(_no_file(runtime, workspace, wanted.path), workspace, done=False)
    lines, old, new = lines_of(text), lines_of(wanted.old), lines_of(wanted.text)
    if not wanted.old:
        return Effect("Not done: an edit needs at least one line to replace.", workspace, done=False)
    found = places(lines, old)
    if len(found) != 1:
        told = "are not in" if not found else f"are {len(found)} times in"
        more = "copy them as they are" if not found else "add lines around them"
        return Effect(f"Not done: these lines {told} {wanted.path}; {more}.", workspace, done=False)
    (at,) = found
    data = entry(runtime, workspace.overlay, wanted.path).data or b""
    written = replaced(decoded(data) or "", at, old, new).encode("utf-8", "surrogateescape")
    window = Window(wanted.path, max(at + 1 - AROUND, 1), at + len(new) + AROUND)
    return _written(runtime, workspace, wanted.path, written, window, "Edited.")


def _create(runtime: Runtime, workspace: Workspace, wanted: Wanted) -> Effect:
    folders = wanted.path.split("/")
    above = ["/".join(folders[:i]) for i in range(1, len(folders))]
    if any(not (one := entry(runtime, workspace.overlay, path)).gone or one.link for path in above):
        return Effect(f"Not done: a part of the path {wanted.path} is a file.", workspace, done=False)
    if _is_folder(runtime, workspace.overlay, wanted.path):
        return Effect(f"Not done: {wanted.path} is a folder.", workspace, done=False)
    window = Window(wanted.path, 1, max(min(len(lines_of(wanted.text)), MOST_LINES), 1))
    return _written(runtime, workspace, wanted.path, wanted.text.encode(), window, "Written.")


def _written(runtime: Runtime, workspace: Workspace, path: str, data: bytes, window: Window, said: str) -> Effect:
    executable = entry(runtime, workspace.overlay, path).executable
    overlay = workspace.overlay.without(path)
    if runtime.read(path) != data:
        overlay = overlay.with_({path: Entry(data, executable)})
    last = min(window.last, max(len(lines_of(decoded(data) or "")), 1))
    return Effect(said, Workspace(overlay, replace(window, last=max(last, window.first))))


def _undo(runtime: Runtime, workspace: Workspace, wanted: Wanted) -> Effect:
    overlay = workspace.overlay.without(wanted.path)
    if overlay == workspace.overlay:
        return Effect(f"Not done: nothing is changed at {wanted.path}.", workspace, done=False)
    return Effect("It is as it was.", replace(workspace, overlay=overlay))


def _is_folder(runtime: Runtime, overlay: Overlay, path: str) -> bool:
    below = f"{path}/"
    kept = any(name.startswith(below) and name not in overlay.entries for name in runtime.names)
    return kept or any(name.startswith(below) and not one.gone for name, one in overlay.entries.items())


def _no_file(runtime: Runtime, workspace: Workspace, path: str) -> str:
    if entry(runtime, workspace.overlay, path).data is not None:
        return f"Not done: {path} is no text."
    name = path.rsplit("/", 1)[-1]
    alike = [one for one in present(runtime, workspace.overlay) if one.rsplit("/", 1)[-1] == name][:3]
    return f"Not done: there is no file {path}" + (f"; there is {', '.join(alike)}." if alike else ".")


def present(runtime: Runtime, overlay: Overlay) -> list[str]:
    """All files that are there, sorted; git's own left out."""
    names = {name for name in runtime.names if name not in overlay.entries}
    return sorted(names | {name for name, one in overlay.tree.entries.items() if not one.gone})


def shortened(text: str) -> str:
    """Beginning and end of an output, with a notice of what is left out."""
    text = text.rstrip()
    if len(text) <= OUTPUT:
        return text
    half = OUTPUT // 2
    return f"{text[:half]}\n[… {len(text) - OUTPUT} characters left out …]\n{text[-half:]}"


def render_observation(runtime: Runtime, workspace: Workspace) -> str:
    """The workspace as the agent reads it: what is changed, and the open file or the names of files."""
    changed = [f"{name}{' (gone)' if one.gone else ''}" for name, one in workspace.overlay.tree.entries.items()]
    more = f" and {len(changed) - 20} more" if len(changed) > 20 else ""
    head = f"Changed: {', '.join(changed[:20])}{more}." if changed else "Nothing is changed yet."
    window = workspace.window
    text = text_of(runtime, workspace.overlay, window.path) if window else None
    if window is None or text is None:
        names = sorted(present(runtime, workspace.overlay), key=lambda name: (not name.endswith(".py"), name))
        rest = f"\n… and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return head + "\nFiles:\n" + "\n".join(names[:LISTED]) + rest
    lines = lines_of(text)
    last = min(window.last, len(lines))
    shown = "\n".join(lines[window.first - 1 : last])
    if len(shown) > WIDEST:
        shown = f"{shown[:WIDEST]}\n[… {len(shown) - WIDEST} characters left out …]"
    return f"{head}\nOpen: {window.path}, lines {window.first}-{last} of {len(lines)}:\n{shown}"
