"""Where an instance's commands and tests run: boxes of the sandbox, or containers of its official image.

Every request gets a fresh copy of the repository and the agent's changes, and gives back what is changed after it. So a
workspace is a value (:class:`Overlay`), nothing is left running between two actions, and looking ahead costs no copy.
Hidden tests and reference patch are only in the boxes that judge and that apply the reference.

- ``local``: bubblewrap, with the repository from ``repositories/<owner>__<name>`` and a virtual environment to read,
  ``environments/<instance, owner__name-version, owner__name or default>``, both in the folder of built instances.
- ``apptainer``, ``docker``: a container of the instance's official image, in which everything is prepared.

**Apptainer and Docker were never run here**: their command lines are tested, and what is said where they are missing.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tarfile
import tempfile
import uuid
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from r2v_core.benchmarks.swebench.data import Instance
from r2v_core.benchmarks.swebench.files import Entry, Overlay, from_wire
from r2v_core.benchmarks.swebench.judge import MARKS, Verdict, grade, judged_by_harness, lost, untouched
from r2v_core.errors import R2VError
from r2v_core.sandbox import Limits, run
from r2v_core.sandbox.isolation import interpreter

Execution = Literal["local", "apptainer", "docker"]
SCRIPT = Path(__file__).with_name("box.py")
CONDA = "/opt/miniconda3/envs/testbed/bin:/opt/miniconda3/bin:/usr/local/bin:/usr/bin:/bin"
"""The search path in official images."""
_KEPT = 2048
"""Answers remembered of each kind, for each instance."""

_TIMES = re.compile(r"\bin \d+(?:\.\d+)?s(?: \(\d+:\d\d:\d\d\))?")
_ADDRESSES = re.compile(r"0x[0-9a-f]{6,}")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Silent(R2VError):
    """A box that gave no answer: what ran there met a limit, or broke it."""


@dataclass(frozen=True)
class Where:
    """How and with what instances are run."""

    execution: Execution
    folder: Path
    command_s: int
    tests_s: int
    memory_mb: int
    disk_mb: int


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int | None
    """None: it ran into its limit of time."""
    output: str
    overlay: Overlay
    problem: str = ""
    """Why nothing of it was kept."""


def room_for(instance: Instance, where: Where) -> Room:
    """The instance's room; the same one for equal arguments, so that what was asked once is known."""
    return _room(instance, where)


@lru_cache(maxsize=32)
def _room(instance: Instance, where: Where) -> Room:
    return Room(instance, where)


class Room:
    """One instance's repository, and the boxes that things happen in."""

    def __init__(self, instance: Instance, where: Where) -> None:
        self.instance, self.where = instance, where
        self._base = b""
        self.names: tuple[str, ...] = ()
        if where.execution == "local":
            self._python = environment_of(instance, where.folder)
            self._base = self._prepared(_exported(instance, where.folder))
            self._files = _unpacked(self._base)
            self.names = tuple(sorted(self._files))
        else:
            self._files = {}
            self.names = tuple(sorted(self._ask("list", where.command_s)["names"]))
        self.shell = lru_cache(_KEPT)(self._shell)
        self.patch = lru_cache(_KEPT)(self._patch)
        self.verdict = lru_cache(_KEPT)(self._verdict)

    def read(self, path: str) -> bytes | None:
        """A file of the repository as it was; None where there is none."""
        if self.where.execution != "local" and path in self.names and path not in self._files:
            found = self._ask("read", self.where.command_s, names=[path])[path]
            self._files[path] = base64.b64decode(found or "")
        return self._files.get(path)

    @cached_property
    def gold(self) -> Overlay:
        """What the reference patch changes.

        Raises:
            R2VError: if it does not apply.
        """
        patch = base64.b64encode(self.instance.patch.encode()).decode()
        found = self._ask("apply", self.where.command_s, patch=patch)
        if found["problem"]:
            raise R2VError(f"{self.instance.instance_id}: its reference patch does not apply: {found['problem'][:300]}")
        return Overlay(from_wire(found["changes"])).tree

    def judge(self, overlay: Overlay) -> Verdict:
        """The hidden tests' verdict on a workspace."""
        if not overlay.tree.entries:
            return untouched(self.instance)
        try:
            return self.verdict(self.patch(overlay.tree))
        except Silent:
            return lost(self.instance)

    def log(self, patch: bytes, seconds: int) -> str:
        """What the hidden tests print on a patch."""
        answer = self._ask(
            "judge",
            seconds,
            patch=base64.b64encode(patch).decode(),
            test_patch=base64.b64encode(self.instance.test_patch.encode()).decode(),
            command=self.instance.test_command,
            marks=MARKS,
        )
        return str(answer.get("log", ""))

    def _shell(self, overlay: Overlay, command: str) -> Ran:
        try:
            found = self._ask("shell", self.where.command_s, changes=overlay.wire(), command=command)
            changes = {} if found["problem"] else from_wire(found["changes"])
            after = self._tidy(overlay.with_(changes))
            return Ran(found["status"], scrubbed(found["output"]), after, str(found["problem"]))
        except Silent as error:
            return Ran(None, "", overlay, str(error))
        except (KeyError, TypeError, ValueError, AttributeError):  # it answered in the script's place
            return Ran(None, "", overlay, "it broke its box")

    def _tidy(self, overlay: Overlay) -> Overlay:
        """Without changes that change nothing."""
        return Overlay({name: entry for name, entry in overlay.entries.items() if self._differs(name, entry)})

    def _differs(self, name: str, entry: Entry) -> bool:
        if name.startswith(".git/"):
            return True
        return name in self.names if entry.gone else entry.link is not None or self.read(name) != entry.data

    def _patch(self, tree: Overlay) -> bytes:
        return base64.b64decode(self._ask("diff", self.where.command_s, changes=tree.wire())["patch"])

    def _verdict(self, patch: bytes) -> Verdict:
        if not patch.strip():
            return untouched(self.instance)
        text = patch.decode(errors="replace")
        if self.where.execution == "docker":
            return judged_by_harness(self.instance, text, self.where.tests_s)
        try:
            return grade(self.instance, text, self.log(patch, self.where.tests_s))
        except Silent:
            return lost(self.instance)

    def _prepared(self, tree: bytes) -> bytes:
        self._base = tree
        return base64.b64decode(self._ask("prepare", self.where.command_s)["tar"])

    def _ask(self, mode: str, seconds: int, **more: Any) -> dict[str, Any]:
        """One request to the box's script.

        Raises:
            Silent: if there is no answer.
        """
        local = self.where.execution == "local"
        request = {
            "mode": mode,
            "root": "/box/repo" if local else "/testbed",
            "seconds": seconds,
            "environment": self._variables() if local else {"PATH": CONDA},
            **more,
        }
        answer, why = self._launched(json.dumps(request), seconds)
        try:
            found: dict[str, Any] = dict(json.loads(answer.rstrip().rpartition("\n")[2]))
        except (ValueError, TypeError, RecursionError):
            raise Silent(f"{self.instance.instance_id}: the box of '{mode}' gave no answer: {why}") from None
        return found

    def _launched(self, request: str, seconds: int) -> tuple[str, str]:
        """What the script answered, and why not if it did not."""
        where = self.where
        if where.execution == "docker":
            return _in_docker(self.instance, request, where, seconds + 60)
        limits = Limits(
            wall_s=seconds + 60.0, cpu_s=seconds + 30, memory_mb=where.memory_mb, processes=128,
            disk_mb=where.disk_mb, output_kb=512 << 10,
        )  # fmt: skip
        if where.execution == "apptainer":
            command = ["python3", "-c", SCRIPT.read_text(encoding="utf-8")]
            image = f"docker://{self.instance.docker_image}"
            ended = run(command, stdin=request, limits=limits, backend="apptainer", image=image, writable=True)
        else:
            command = [interpreter(), "-I", "-S", "-B", "-c", SCRIPT.read_text(encoding="utf-8")]
            ended = run(
                command, files={"base.tar": self._base}, stdin=request, limits=limits, backend="bubblewrap",
                readable=_readable(self._python), hidden=_hidden(self._python),
            )  # fmt: skip
        last = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return ended.stdout, f"it was stopped for its {ended.stopped}" if ended.stopped else last

    def _variables(self) -> dict[str, str]:
        roots = [f"/box/repo/{name}" for name in ("src", "lib") if any(n.startswith(f"{name}/") for n in self.names)]
        path = f"{self._python.parent}:/usr/local/bin:/usr/bin:/bin"
        roots = ["/box/repo", *roots]
        return {"PATH": path, "PYTHONPATH": ":".join(roots), "VIRTUAL_ENV": str(self._python.parents[1])}


def scrubbed(output: str) -> str:
    """Output that is the same when the same is done again: without durations, addresses and terminal codes."""
    text = _CONTROL.sub("", _COLOURS.sub("", output.replace("\r\n", "\n")))
    return _ADDRESSES.sub("0x…", _TIMES.sub("in …s", text))


def environment_of(instance: Instance, folder: Path) -> Path:
    """The Python of the virtual environment that is prepared for an instance.

    Raises:
        R2VError: if there is none.
    """
    names = (instance.instance_id, f"{instance.folder}-{instance.version}", instance.folder, "default")
    for name in names:
        python = folder.resolve() / "environments" / name / "bin/python"
        if python.exists():
            return python
    raise R2VError(
        f"{instance.instance_id}: no virtual environment in {folder / 'environments'}; make one named "
        f"{names[0]}, {names[1]}, {names[2]} or default with what its tests need"
    )


def _home(python: Path) -> Path:
    """The prefix of the installation that a virtual environment is of."""
    return python.resolve().parents[1]


def _readable(python: Path) -> list[Path]:
    return [python.parents[1], _home(python)]


def _hidden(python: Path) -> list[Path]:
    """Other packages of this machine: among them may be the one to repair, in a version that is."""
    folders = [*_home(python).glob("lib/python3*/site-packages"), Path("/usr/lib/python3/dist-packages")]
    return [*folders, *Path("/usr/local/lib").glob("python3*/dist-packages")]


def repository_of(instance: Instance, folder: Path) -> Path:
    """The clone that holds an instance's base commit.

    Raises:
        R2VError: if there is none.
    """
    path = folder / "repositories" / instance.folder
    found = _git(path, "cat-file", "-e", f"{instance.base_commit}^{{commit}}") if path.is_dir() else None
    if found is None or found.returncode:
        what = f"lacks commit {instance.base_commit}" if path.is_dir() else "is missing"
        raise R2VError(f"{instance.instance_id}: the clone {path} {what}; local execution needs it there")
    return path


def _exported(instance: Instance, folder: Path) -> bytes:
    """The files of the base commit as a tar."""
    path = repository_of(instance, folder)
    with tempfile.TemporaryDirectory(prefix="r2v-export-") as name:
        tree = Path(name, "tree")
        tree.mkdir()
        apart = {"GIT_INDEX_FILE": str(Path(name, "index")), "GIT_WORK_TREE": str(tree)}
        for arguments in (("read-tree", instance.base_commit), ("checkout-index", "-a")):
            done = _git(path, *arguments, cwd=tree, **apart)
            if done.returncode:
                raise R2VError(f"{instance.instance_id}: can't read {path}: {done.stderr.strip()}")
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(tree, arcname=".")
    return packed.getvalue()


def _git(path: Path, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    path = path.resolve()
    folder = path / ".git" if (path / ".git").exists() else path
    return subprocess.run(
        ["git", "-c", "safe.directory=*", f"--git-dir={folder}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd or path,
        env={**os.environ, **variables},
    )


def _unpacked(archive: bytes) -> dict[str, bytes]:
    """Regular files of the repository by path, without git's own."""
    files = {}
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            handle = tar.extractfile(member) if member.isfile() and not name.startswith(".git/") else None
            if handle is not None:
                files[name] = handle.read()
    return files


def docker_command(instance: Instance, where: Where, name: str) -> list[str]:
    """A container of the instance's image that runs the box's script."""
    return [
        *("docker", "run", "--rm", "--interactive", "--name", name, "--network", "none", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--pids-limit", "256", "--memory", f"{where.memory_mb}m"),
        *("--workdir", "/tmp", instance.docker_image, "python3", "-c", SCRIPT.read_text(encoding="utf-8")),
    ]


def _in_docker(instance: Instance, request: str, where: Where, seconds: int) -> tuple[str, str]:
    name = f"r2v-{uuid.uuid4().hex[:12]}"
    try:
        done = subprocess.run(
            docker_command(instance, where, name), input=request, capture_output=True, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        subprocess.run(["docker", "kill", name], capture_output=True, check=False)
        return "", "it was stopped for its time"
    return done.stdout, (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
