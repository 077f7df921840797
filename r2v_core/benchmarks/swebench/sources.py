"""Which of a patch's changes a verdict is about: source, and what was asked for. The rest is undone before tests run.

What is undone decides how tests run, or could: tests, settings at or above them, modules that Python or pytest load by
themselves, compiled code, and new modules that would stand in the place of installed ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from r2v_core.benchmarks.swebench.files import Overlay

_TEST_FOLDERS = frozenset({"test", "tests", "testing", "e2e"})
_TEST_NAMES = frozenset({"test", "tests", "conftest"})
_LOADED = frozenset({"conftest", "sitecustomize", "usercustomize"})
"""Modules and packages that Python and pytest import by themselves."""
_REGISTERED = (".pth", ".egg-info", ".dist-info", ".egg-link", ".egg")
"""What registers plugins or paths, wherever it lies."""
_COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".zip", ".whl")
_SETTINGS = (".ini", ".cfg", ".toml")
_REACHING = re.compile(
    rb"\b(_?pytest|pluggy|unittest|settrace|setprofile|_getframe|currentframe|tb_frame|f_locals|f_back|get_objects|"
    rb"get_referrers|addaudithook|_exit|execv|ctypes|atexit|__eq__)\b|/proc\b|sys\.modules"
)
"""Words of code that can reach into the process of its tests, or around their comparisons."""
_SOURCE_FOLDERS = ("", "src/", "lib/")
"""Where modules are imported from."""


def is_test_file(path: str) -> bool:
    """Whether a file belongs to the tests or decides how they run: what a verdict takes from the repository alone."""
    *folders, name = path.lower().split("/")
    stem = name.rsplit(".", 1)[0]
    return (
        bool(_TEST_FOLDERS & {*folders})
        or stem in _TEST_NAMES | _LOADED
        or stem.startswith("test_")
        or stem.endswith(("_test", "_tests"))
        or name in ("pytest.ini", ".pytest.ini", "tox.ini")
    )


@dataclass(frozen=True)
class Repository:
    """What has to be known of a repository to tell its source from the rest."""

    names: Collection[str]
    """Its files before the patch."""
    tests: Sequence[str]
    """The files of the hidden tests."""
    asked_for: Collection[str]
    """Files that the reference patch changes."""
    installed: Callable[[], Collection[str]]
    """Modules that the environment has without the repository."""

    def above_tests(self, path: str) -> bool:
        """Whether a file lies in the folder of a hidden test, or in one above it."""
        folder = PurePosixPath(path).parent
        return any(PurePosixPath(test).is_relative_to(folder) for test in self.tests) or str(folder) == "."

    def import_folders(self) -> set[str]:
        """Where modules are looked for while the tests run: pytest adds the folder that holds a test's package."""
        found = {*_SOURCE_FOLDERS}
        for test in self.tests:
            folder = PurePosixPath(test).parent
            while f"{folder}/__init__.py" in self.names:
                folder = folder.parent
            found.add("" if str(folder) == "." else f"{folder}/")
        return found

    def shadows(self, path: str) -> bool:
        """Whether a file would be imported in the place of an installed module."""
        for folder in self.import_folders():
            if not path.startswith(folder) or not path.endswith(".py"):
                continue
            module = path[len(folder) :].split("/")[0].split(".")[0]
            own = {f"{folder}{module}.py", f"{folder}{module}/__init__.py"}
            if not own & {*self.names} and module in self.installed():
                return True
        return False


def _loaded_by_itself(path: str, repository: Repository) -> bool:
    parts = path.lower().split("/")
    return any(part.split(".")[0] in _LOADED or part.endswith(_REGISTERED) for part in parts)


def _settings(path: str, repository: Repository) -> bool:
    settings = [part for part in path.lower().split("/") if part.endswith(_SETTINGS) or part == ".gitattributes"]
    return bool(settings) and repository.above_tests(path[: path.lower().index(settings[0])] + "x")


TEST = "test"
KINDS: dict[str, Callable[[str, Repository], bool]] = {
    "loaded by itself": _loaded_by_itself,
    "settings": _settings,
    TEST: lambda path, repository: is_test_file(path) or path in repository.tests,
    "compiled": lambda path, repository: path.lower().endswith(_COMPILED),
    "in the place of a module": lambda path, repository: repository.shadows(path),
}
"""What a file is that is no source, and how it is known."""


def kind_of(path: str, repository: Repository) -> str:
    """Which of :data:`KINDS` a file is; empty for source."""
    return next((kind for kind, is_one in KINDS.items() if is_one(path, repository)), "")


def reaching(path: str, data: bytes | None, *known: bytes | None) -> str:
    """The words by which a changed file could reach into its tests' process, and which none of the ``known`` has."""
    if data is None or not path.endswith(".py"):
        return ""
    words = {found[0] for found in _REACHING.finditer(data)}
    for text in known:
        words -= {found[0] for found in _REACHING.finditer(text or b"")}
    return ", ".join(sorted(word.decode() for word in words))


def divided(changes: Overlay, repository: Repository) -> tuple[Overlay, dict[str, str]]:
    """The changes that count, and every other file with its kind; also those that count as they were asked for."""
    kinds = {path: kind for path in changes if (kind := kind_of(path, repository))}
    counting = {
        path: entry
        for path, entry in changes.entries.items()
        if path not in kinds or (path in repository.asked_for and path not in repository.tests)
    }
    return Overlay(counting), kinds
