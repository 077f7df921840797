"""Instances in SWE-bench's format, made on this machine from what small pure-Python packages released on PyPI.

``configs/swebench/instances.yaml`` names, for each, a package, the release before and after a fix, the files of the fix
and those of its tests. :func:`build` downloads both source archives with pip, makes a git repository of the older one,
takes the differences as ``patch`` and ``test_patch``, and runs the tests without and with the fix: those that only pass
with it are FAIL_TO_PASS, those that pass both times PASS_TO_PASS. A package's tests run in the sandbox, nowhere else;
pip reads its metadata as it does on every installation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core.benchmarks.swebench.boxes import Where
from r2v_core.benchmarks.swebench.data import END, FILE, START, Instance, project
from r2v_core.benchmarks.swebench.doubts import PASSING
from r2v_core.benchmarks.swebench.files import Overlay
from r2v_core.benchmarks.swebench.judge import grade, statuses
from r2v_core.benchmarks.swebench.runtime import Runtime
from r2v_core.config.explain import explain, schema_keys
from r2v_core.config.yamlfile import read_yaml
from r2v_core.console import say
from r2v_core.errors import R2VError

TABLE = Path("configs/swebench/instances.yaml")
PYTEST = "python -m pytest -rA --tb=no --show-capture=no -p no:cacheprovider -o addopts= "
WHERE = {"execution": "local", "command_s": 60, "tests_s": 300, "memory_mb": 2048, "disk_mb": 256}
_DATE = "2020-01-01T00:00:00+0000"


class Recipe(BaseModel):
    """One row of the table: which fix an instance is made of."""

    model_config = ConfigDict(extra="forbid")
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name of the upstream repository")
    package: str = Field(description="name on PyPI")
    before: str = Field(description="release with the bug")
    after: str = Field(description="release without it")
    source: list[str] = Field(min_length=1, description="files of the fix")
    tests: list[str] = Field(min_length=1, description="files of its tests")
    problem: str = Field(min_length=1, description="what is wrong, as told by somebody who does not know the fix")

    @property
    def instance_id(self) -> str:
        """As SWE-bench forms it, with the release instead of a pull request's number."""
        return f"{self.repo.replace('/', '__')}-{self.after}"


@dataclass(frozen=True)
class Built:
    """An instance, and how it was checked."""

    instance: Instance
    gold: bool
    """The grader resolves the reference patch, and does not resolve an empty one."""


def read_table(path: Path | None = None) -> list[Recipe]:
    """The table of recipes.

    Raises:
        R2VError: naming what is wrong in it.
    """
    path = path or project() / TABLE
    if not path.is_file():
        raise R2VError(f"{path}: no such file; restore it, as it lists what instances are built from")
    rows = read_yaml(path).data.get("instances")
    if not isinstance(rows, list) or not rows:
        raise R2VError(f"{path}: expected one key, 'instances', with a list of fixes")
    try:
        return [Recipe.model_validate(row) for row in rows]
    except ValidationError as error:
        wrong = explain(error, schema_keys(Recipe))
        raise R2VError("\n".join(f"{path}: {key}: {what}" for key, what in wrong.items())) from None


def build(
    recipes: Sequence[Recipe],
    folder: Path,
    requirements: Sequence[str] = ("pytest",),
    log: Callable[[str], None] = say,
) -> list[Built]:
    """Make instances, their repositories and their virtual environment in ``folder``; what is downloaded is kept.

    Instances that the folder has besides stay.

    Raises:
        R2VError: if an archive can't be had, or a fix has no test that only passes with it.
    """
    make_environment(folder / "environments" / "default", requirements)
    archives = download(recipes, folder / "sdists")
    built = []
    for recipe in recipes:
        built.append(_built(recipe, archives, folder))
        one = built[-1].instance
        log(f"{one.instance_id}: {len(one.fail_to_pass)} to fix, {len(one.pass_to_pass)} to keep")
    _write(folder / FILE, [one.instance.row() for one in built])
    return built


def _write(path: Path, rows_: Sequence[dict[str, Any]]) -> None:
    """Put instances into a file, in the place of those of the same name; others in it stay."""
    kept = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = {row["instance_id"]: row for row in [*map(json.loads, kept), *rows_]}
    whole = path.with_name(f"{path.name}.new")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.values())
    whole.write_text(lines, encoding="utf-8")
    whole.replace(path)


def make_environment(folder: Path, requirements: Sequence[str]) -> None:
    """A virtual environment with what the tests need, and nothing of the packages themselves."""
    done = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if done.is_file() and done.read_text() == wanted and (folder / "bin/python").exists():
        return
    venv.create(folder, symlinks=True, with_pip=False, clear=True)
    constraints = project() / "constraints.txt"
    pinned = ["-c", str(constraints)] if constraints.is_file() else []
    _pip("--python", str(folder / "bin/python"), "install", "--quiet", *pinned, *requirements)
    done.write_text(wanted)


def download(recipes: Sequence[Recipe], folder: Path) -> dict[tuple[str, str], Path]:
    """The source archives of all releases, by package and version.

    Raises:
        R2VError: with what pip said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sorted({(one.package, version) for one in recipes for version in (one.before, one.after)})
    while missing := [pair for pair in wanted if _archive(folder, *pair) is None]:
        together = dict(missing)  # one release of a package a call
        asked = ["download", "--quiet", "--no-deps", "--no-binary", ",".join(together), "--dest", str(folder)]
        names = [f"{package}=={version}" for package, version in together.items()]
        _download(asked, names)
        lost = [f"{p}=={v}" for p, v in together.items() if _archive(folder, p, v) is None]
        if lost:
            raise R2VError(
                f"pip did not download {lost[0]} into {folder}; see that PyPI has a source archive of this release"
            )
    return {pair: found for pair in wanted if (found := _archive(folder, *pair))}


def _download(asked: Sequence[str], names: Sequence[str]) -> None:
    """With this environment's setuptools, which takes seconds; each that needs another build system with its own."""
    try:
        _pip(*asked, "--no-build-isolation", *names)
    except R2VError:
        if len(names) == 1:
            _pip(*asked, *names)
            return
        for name in names:
            _download(asked, [name])


def _archive(folder: Path, package: str, version: str) -> Path | None:
    plain = package.lower().replace("_", "-")
    for path in folder.glob("*.tar.gz"):
        name, _, found = path.name.removesuffix(".tar.gz").rpartition("-")
        if name.lower().replace("_", "-") == plain and found == version:
            return path
    return None


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        told = next((line for line in said if "ERROR" in line), said[-1])
        raise R2VError(f"pip {arguments[0]} failed: {told}")


def _built(recipe: Recipe, archives: dict[tuple[str, str], Path], folder: Path) -> Built:
    with tempfile.TemporaryDirectory(prefix="r2v-releases-") as name:
        old, new = (_unpack(archives[recipe.package, version], Path(name, version)) for version in
                    (recipe.before, recipe.after))  # fmt: skip
        repository = folder / "repositories" / recipe.repo.replace("/", "__")
        instance = _drafted(recipe, repository, old, new)
    runtime = Runtime(instance, Where(folder=folder, **WHERE))  # type: ignore[arg-type]
    runs = [runtime.tests(changes) for changes in (Overlay(), runtime.gold)]
    before, after = (statuses(instance, run.log) for run in runs)
    whole = sorted(test for test, status in after.items() if status in PASSING and test.count("[") == test.count("]"))
    instance = replace(
        instance,
        fail_to_pass=tuple(test for test in whole if before.get(test) not in PASSING),
        pass_to_pass=tuple(test for test in whole if before.get(test) in PASSING),
    )
    for what, tests in (("only with the fix", instance.fail_to_pass), ("both times", instance.pass_to_pass)):
        if not tests:
            said = " / ".join(runs[1].printed.strip().splitlines()[-4:])
            raise R2VError(
                f"{instance.instance_id}: no test passes {what}; correct its 'tests' or releases in {TABLE}. The log "
                f"with the fix ends: {said}"
            )
    verdicts = [grade(instance, text, run.log) for text, run in zip(("", instance.patch), runs, strict=True)]
    return Built(instance, gold=verdicts[1].resolved and not verdicts[0].resolved)


def _unpack(archive: Path, folder: Path) -> Path:
    """The archive's files; its one top folder."""
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # before 3.10.12
            safe = [one for one in tar if not PurePosixPath(one.name).is_absolute() and ".." not in one.name]
            tar.extractall(folder, members=safe)
    (top,) = folder.iterdir()
    return top


def _drafted(recipe: Recipe, repository: Path, old: Path, new: Path) -> Instance:
    """The instance without its lists of tests, and its base commit in the repository."""
    repository.mkdir(parents=True, exist_ok=True)
    _git(repository, "init", "--quiet", "--bare", ".")
    tree = _tree(repository, old)
    base = _git(repository, "commit-tree", tree, "-m", f"{recipe.package} {recipe.before}").strip()
    _git(repository, "update-ref", f"refs/heads/{recipe.instance_id}", base)
    patches = []
    for names, keep in ((recipe.source, True), (recipe.tests, False)):
        changed = _tree(repository, old, {name: _file(old, new, name, keep) for name in names})
        patches.append(_git(repository, "diff", "--no-renames", "--no-ext-diff", tree, changed))
    if not all(patches):
        same = "tests" if patches[0] else "source"
        raise R2VError(
            f"{recipe.instance_id}: the two releases have the same {', '.join(getattr(recipe, same))}; name files that "
            f"differ under '{same}' in {TABLE}"
        )
    draft = Instance(
        instance_id=recipe.instance_id,
        repo=recipe.repo,
        base_commit=base,
        patch=patches[0],
        test_patch=patches[1],
        problem_statement=recipe.problem.strip(),
        version=recipe.before,
        fail_to_pass=(),
        pass_to_pass=(),
    )
    return replace(draft, eval_script=_eval_script(draft, recipe.tests))


def _file(old: Path, new: Path, name: str, keep_version: bool) -> str | None:
    """A file of the newer release, which still gives the older one's version number."""
    if not (new / name).is_file():
        return None
    text = _text(new / name)
    if not keep_version or not (old / name).is_file():
        return text
    numbers = [line for line in _text(old / name).splitlines(True) if _is_version(line)]
    lines = [numbers.pop(0) if _is_version(line) and numbers else line for line in text.splitlines(True)]
    return "".join(lines)


def _text(path: Path) -> str:
    """With the line ends that it has."""
    return path.read_bytes().decode("utf-8")


def _is_version(line: str) -> bool:
    return line.startswith("__version__ =")


def _tree(repository: Path, folder: Path, files: dict[str, str | None] | None = None) -> str:
    """The git tree of a folder, with some files replaced."""
    with tempfile.TemporaryDirectory(prefix="r2v-tree-") as name:
        index = Path(name, "index")
        here = f"--work-tree={folder}"
        _git(repository, here, "add", "-A", "-f", ".", cwd=folder, index=index)
        for number, (path, text) in enumerate((files or {}).items()):
            if text is None:
                _git(repository, here, "update-index", "--force-remove", path, index=index)
                continue
            written = Path(name, str(number))
            written.write_bytes(text.encode())
            digest = _git(repository, "hash-object", "-w", "--no-filters", str(written)).strip()
            _git(repository, here, "update-index", "--add", "--cacheinfo", f"100644,{digest},{path}", index=index)
        return _git(repository, "write-tree", index=index).strip()


def _git(repository: Path, *arguments: str, cwd: Path | None = None, index: Path | None = None) -> str:
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER")
           for key, value in (("NAME", "r2v"), ("EMAIL", "r2v@localhost"), ("DATE", _DATE))}  # fmt: skip
    apart = {"GIT_INDEX_FILE": str(index)} if index else {}
    settings = ["-c", "core.autocrlf=false", "-c", "core.safecrlf=false"]
    done = subprocess.run(
        ["git", *settings, f"--git-dir={repository.resolve()}", *arguments],
        cwd=cwd or repository, capture_output=True, check=False, env={**os.environ, **who, **apart},
    )  # fmt: skip
    if done.returncode:
        raise R2VError(f"git {arguments[0]} failed in {repository}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode("utf-8", errors="surrogateescape")


def _eval_script(instance: Instance, tests: Sequence[str]) -> str:
    """A script in the form of the official ones."""
    end = f"EOF_{instance.base_commit[:12]}"
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        "cd /testbed",
        f"git apply -v - <<'{end}'",
        f"{instance.test_patch.rstrip()}",
        end,
        f": '{START}'",
        PYTEST + " ".join(tests),
        f": '{END}'",
    ]
    return "\n".join(lines) + "\n"


def rows(built: Sequence[Built]) -> list[dict[str, Any]]:
    """A row for each instance, for a table."""
    return [
        {
            "instance": one.instance.instance_id,
            "fail_to_pass": len(one.instance.fail_to_pass),
            "pass_to_pass": len(one.instance.pass_to_pass),
            "grader": "resolves the reference, not the empty patch" if one.gold else "DISAGREES",
        }
        for one in built
    ]
