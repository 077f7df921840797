"""One instance at work: what its files are, what a command does to them, and what the hidden tests say of a patch.

Every request gets a fresh copy of the repository and the agent's changes, and gives back what is changed after it. So a
workspace is a value (:class:`Overlay`), nothing is left running between two actions, and looking ahead costs no copy.
Hidden tests and reference patch are only in the boxes that judge and that apply the reference.

- ``local``: bubblewrap, with the repository from ``repositories/<owner>__<name>`` and a virtual environment to read,
  ``environments/<instance, owner__name-version, owner__name or default>``, both in the folder of built instances.
- ``apptainer``, ``docker``: a container of the instance's official image, in which everything is prepared.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from typing import Any

from r2v_core.benchmarks.once import once, once_property
from r2v_core.benchmarks.swebench.boxes import SandboxUnresponsive, Where, asked, launched
from r2v_core.benchmarks.swebench.data import Instance
from r2v_core.benchmarks.swebench.doubts import Run, contradiction, control_passed, read_answer, watched
from r2v_core.benchmarks.swebench.files import Entry, Overlay, from_wire
from r2v_core.benchmarks.swebench.judge import MARKS, Verdict, grade, judged_by_harness, lost, untouched
from r2v_core.benchmarks.swebench.repositories import environment_of, exported, unpacked
from r2v_core.benchmarks.swebench.sources import TEST, Repository, divided, reaching
from r2v_core.errors import R2VError

CONDA = "/opt/miniconda3/envs/testbed/bin:/opt/miniconda3/bin:/usr/local/bin:/usr/bin:/bin"
"""The search path in official images."""
_KEPT = 2048
"""Answers remembered of each kind, for each instance."""

_TIMES = re.compile(r"\bin \d+(?:\.\d+)?s(?: \(\d+:\d\d:\d\d\))?")
_ADDRESSES = re.compile(r"0x[0-9a-f]{6,}")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int | None
    """None: it ran into its limit of time."""
    output: str
    overlay: Overlay
    problem: str = ""
    """Why nothing of it was kept."""


def runtime_for(instance: Instance, where: Where) -> Runtime:
    """The instance's runtime; the same one for equal arguments, so that what was asked once is known."""
    return _runtime(instance, where)


@once(32)
def _runtime(instance: Instance, where: Where) -> Runtime:
    return Runtime(instance, where)


class Runtime:
    """One instance's repository, and the boxes that things happen in."""

    def __init__(self, instance: Instance, where: Where) -> None:
        self.instance, self.where = instance, where
        self._base = b""
        self._python = environment_of(instance, where.folder) if where.execution == "local" else None
        self.names: tuple[str, ...] = ()
        if self._python:
            self._base = self._prepared(exported(instance, where.folder))
            self._files = unpacked(self._base)
            self.names = tuple(sorted(self._files))
        else:
            self._files = {}
            self.names = tuple(sorted(self._ask("list", where.command_s)["names"]))
        self.shell = once(_KEPT)(self._shell)
        self.patch = once(_KEPT)(self._patch)
        self.verdict = once(_KEPT)(self._verdict)
        self._judged = once(_KEPT)(self._judge)
        self._source_judged = once(_KEPT)(self._judge_source)

    def read(self, path: str) -> bytes | None:
        """A file of the repository as it was; None where there is none."""
        if self.where.execution != "local" and path in self.names and path not in self._files:
            found = self._ask("read", self.where.command_s, names=[path])[path]
            self._files[path] = base64.b64decode(found or "")
        return self._files.get(path)

    @once_property
    def gold(self) -> Overlay:
        """What the reference patch changes.

        Raises:
            R2VError: if it does not apply.
        """
        changes, problem = self._applied(self.instance.patch.encode())
        if problem:
            raise R2VError(
                f"{self.instance.instance_id}: its reference patch does not apply; correct or remove the instance: "
                f"{problem[:300]}"
            )
        return changes

    @once_property
    def repository(self) -> Repository:
        """What tells this repository's source from the rest."""
        return Repository(
            frozenset(self.names), self.instance.test_files, frozenset(self.gold), lambda: self._modules["modules"]
        )

    def judge(self, overlay: Overlay) -> Verdict:
        """The hidden tests' verdict on a workspace: on what its patch holds."""
        if not overlay.tree.entries:
            return untouched(self.instance)
        try:
            return self._judged(self._diff(overlay.tree)[1])
        except SandboxUnresponsive:
            return lost(self.instance)

    def tests(self, changes: Overlay, control: bool = False) -> Run:
        """Run the hidden tests on the repository with some changes; with ``control`` on ones that have to fail."""
        answer = self._ask(
            "judge",
            self.where.tests_s,
            changes=changes.wire(),
            test_patch=base64.b64encode(self.instance.test_patch.encode()).decode(),
            test_files=self.instance.test_files,
            command=self.instance.test_command,
            marks=MARKS,
            plugins=self._modules["plugins"],
            control=control,
        )
        return read_answer(self.instance, answer)

    def _judge(self, changes: Overlay) -> Verdict:
        counting, kinds = divided(changes, self.repository)
        touched = [f"{kind}: {path}" for path, kind in kinds.items() if kind != TEST]
        for path, entry in counting.entries.items():
            fixed = self.gold.entries.get(path)
            if words := reaching(path, entry.data, self.read(path), fixed.data if fixed else None):
                touched.append(f"speaks of {words}: {path}")
        return replace(self._source_judged(counting), touched=tuple(touched))

    def _judge_source(self, source: Overlay) -> Verdict:
        """The verdict on changes of which all count; passes are believed where a control of the same tests fails."""
        if not source.entries:
            return untouched(self.instance)
        if self.where.execution == "docker":
            text = self.patch(source).decode(errors="replace")
            return judged_by_harness(self.instance, text, self.where.tests_s)
        try:
            run = self.reference if source == self.gold else self.tests(source)
            verdict = grade(self.instance, "source", run.log)
            doubt = contradiction(self.instance, run)
            if verdict.fixed and not doubt and source != self.gold:  # the reference deceives nobody
                doubt = self._reached(run) or control_passed(self.instance, run, self.tests(source, control=True))
        except SandboxUnresponsive:
            return lost(self.instance)
        return replace(lost(self.instance), doubt=doubt) if doubt else verdict

    def _reached(self, run: Run) -> str:
        """How a fix reached into its tests' process in a way that the reference does not; empty if in none."""
        found = watched(run)
        unusual = sorted(found - watched(self.reference)) if found else []
        return f"the fix reaches into its tests' process: {', '.join(unusual[:3])}" if unusual else ""

    @once_property
    def reference(self) -> Run:
        """The hidden tests on the reference."""
        return self.tests(self.gold)

    def _verdict(self, patch: bytes) -> Verdict:
        if not patch.strip():
            return untouched(self.instance)
        try:
            changes, problem = self._applied(patch)
        except SandboxUnresponsive:
            return lost(self.instance)
        return lost(self.instance) if problem else self._judged(changes)

    def _applied(self, patch: bytes) -> tuple[Overlay, str]:
        """What a patch changes, and why it does not apply, if so."""
        found = self._ask("apply", self.where.command_s, patch=base64.b64encode(patch).decode())
        return Overlay(from_wire(found["changes"])).tree, str(found["problem"])

    @once_property
    def _modules(self) -> dict[str, Any]:
        return self._ask("modules", self.where.command_s)

    def _shell(self, overlay: Overlay, command: str) -> Ran:
        try:
            found = self._ask("shell", self.where.command_s, changes=overlay.wire(), command=command)
            changes = {} if found["problem"] else from_wire(found["changes"])
            after = self._tidy(overlay.with_(changes))
            return Ran(found["status"], scrubbed(found["output"]), after, str(found["problem"]))
        except SandboxUnresponsive as error:
            return Ran(None, "", overlay, str(error))

    def _tidy(self, overlay: Overlay) -> Overlay:
        """Without changes that change nothing."""
        return Overlay({name: entry for name, entry in overlay.entries.items() if self._differs(name, entry)})

    def _differs(self, name: str, entry: Entry) -> bool:
        if name.startswith(".git/"):
            return True
        return name in self.names if entry.gone else entry.link is not None or self.read(name) != entry.data

    def _patch(self, tree: Overlay) -> bytes:
        return self._diff(tree)[0]

    def _diff(self, tree: Overlay) -> tuple[bytes, Overlay]:
        """The patch of changes, and those of them that are in it: git leaves out what the repository ignores."""
        found = self._ask("diff", self.where.command_s, changes=tree.wire())
        inside = {*found["names"]}
        kept = Overlay({name: entry for name, entry in tree.entries.items() if name in inside})
        return base64.b64decode(found["patch"]), kept

    def _prepared(self, tree: bytes) -> bytes:
        self._base = tree
        return base64.b64decode(self._ask("prepare", self.where.command_s)["tar"])

    def _ask(self, mode: str, seconds: int, **more: Any) -> dict[str, Any]:
        """One request to the worker.

        Raises:
            SandboxUnresponsive: if there is no answer.
        """
        request = {
            "mode": mode,
            "root": "/box/repo" if self._python else "/testbed",
            "seconds": seconds,
            "environment": self._variables() if self._python else {"PATH": CONDA},
            **more,
        }
        return asked(lambda text: self._launched(text, seconds), self.instance.instance_id, request)

    def _launched(self, request: str, seconds: int) -> tuple[str, str]:
        return launched(self.instance, self.where, request, seconds, self._base, self._python)

    def _variables(self) -> dict[str, str]:
        assert self._python
        roots = [f"/box/repo/{name}" for name in ("src", "lib") if any(n.startswith(f"{name}/") for n in self.names)]
        path = f"{self._python.parent}:/usr/local/bin:/usr/bin:/bin"
        roots = ["/box/repo", *roots]
        return {"PATH": path, "PYTHONPATH": ":".join(roots), "VIRTUAL_ENV": str(self._python.parents[1])}


def scrubbed(output: str) -> str:
    """Output that is the same when the same is done again: without durations, addresses and terminal codes."""
    text = _CONTROL.sub("", _COLOURS.sub("", output.replace("\r\n", "\n")))
    return _ADDRESSES.sub("0x…", _TIMES.sub("in …s", text))
