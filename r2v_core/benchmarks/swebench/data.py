"""Instances in SWE-bench's format (Jimenez et al. 2024, arXiv:2310.06770), from a JSONL file or the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.runs.jsonl import read_rows

FOLDER = "R2V_SWEBENCH"
"""The environment variable that names the folder of built instances; ``data/swebench`` of the project otherwise."""
FILE = "instances.jsonl"
BUILD = "r2v swebench build"

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
"""Markers of the official harness; the test command stands between them."""

_TEXTS = ("instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement")
_LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
_FILE_LINE = re.compile(r"^diff --git a/(.+) b/(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Instance:
    """One bug to fix. Everything but ``problem_statement`` and the repository stays hidden from the agent."""

    instance_id: str
    repo: str
    base_commit: str
    patch: str
    test_patch: str
    problem_statement: str
    version: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    eval_script: str = ""
    log_parser: str = "parse_log_pytest"
    eval_type: str = "pass_and_fail"
    image: str = ""

    @property
    def content(self) -> str:
        """Digest of the instance with its tests."""
        return digest_of(
            [self.instance_id, self.repo, self.base_commit, self.patch, self.test_patch, self.problem_statement,
             self.fail_to_pass, self.pass_to_pass, self.test_command]
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """As a line of the data set."""
        lists = {"FAIL_TO_PASS": list(self.fail_to_pass), "PASS_TO_PASS": list(self.pass_to_pass)}
        texts = {name: getattr(self, name) for name in (*_TEXTS, "version", "eval_script", "log_parser", "eval_type")}
        return {**texts, **lists, "image": self.docker_image, "hints_text": "", "created_at": ""}

    @property
    def folder(self) -> str:
        """``owner/name`` as the name of a folder."""
        return self.repo.replace("/", "__")

    @property
    def test_command(self) -> str:
        """What runs the hidden tests: what stands between the markers in the instance's own script, else pytest."""
        lines = self.eval_script.splitlines()
        marks = [i for i, line in enumerate(lines) if START in line or END in line]
        if len(marks) == 2:
            return "\n".join(lines[marks[0] + 1 : marks[1]])
        tests = " ".join(sorted({new for _, new in _FILE_LINE.findall(self.test_patch) if new.endswith(".py")}))
        return f"python -m pytest -rA --tb=no --show-capture=no -p no:cacheprovider {tests}"

    @property
    def test_files(self) -> tuple[str, ...]:
        """The files that the hidden tests are in, as far as names and patch tell."""
        named = {test.partition("::")[0] for test in (*self.fail_to_pass, *self.pass_to_pass) if ".py::" in test}
        return tuple(sorted(named | {new for _, new in _FILE_LINE.findall(self.test_patch)}))

    @property
    def docker_image(self) -> str:
        """The official image of the instance, as published on Docker Hub."""
        name = self.instance_id.lower().replace("__", "_1776_")
        return self.image or f"swebench/sweb.eval.x86_64.{name}:latest"


def project() -> Path:
    """Where relative paths start: ``$R2V_PROJECT``, else the working directory."""
    return Path(os.environ.get("R2V_PROJECT") or ".")


def built_folder(named: str | None) -> Path:
    """The folder of instances, repositories and environments."""
    return project() / (named or os.environ.get(FOLDER) or "data/swebench")


def load_instances(named: str | None, folder: Path, split: str) -> dict[str, Instance]:
    """All instances by id, in the file's order.

    Args:
        named: a JSONL file or a hub id; None: the built ones of ``folder``.
        split: of a hub data set.

    Raises:
        R2VError: if there are none, with what to do.
    """
    path = project() / named if named else folder / FILE
    if path.is_file():
        return _read(path, path.stat().st_mtime_ns)
    if named is None:
        raise R2VError(f"no instances in {folder}: build them from PyPI with '{BUILD}', or name a file or hub id in "
                       "benchmark.options.instances")  # fmt: skip
    if named.endswith((".jsonl", ".json")) or named.count("/") != 1:
        raise R2VError(f"benchmark.options.instances: no file {path}; name a JSONL file or a hub id (owner/name)")
    return _from_hub(named, split)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> dict[str, Instance]:
    found = {}
    for where, row in read_rows(path):
        instance = read_instance(row, where)
        if instance.instance_id in found:
            raise R2VError(f"{where}: instance {instance.instance_id} is listed twice; remove one of the two")
        found[instance.instance_id] = instance
    if not found:
        raise R2VError(f"{path}: holds no instances; name a file with one JSON object per line")
    return found


@lru_cache(maxsize=2)
def _from_hub(name: str, split: str) -> dict[str, Instance]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split=split)
    except Exception as error:  # the library raises whatever its transport does
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise R2VError(
            f"benchmark.options.instances: '{name}' could not be loaded from the hub ({why[0][:200]}); without a "
            "connection name a local JSONL file of the same rows"
        ) from None
    instances = [read_instance(row, f"{name}[{number}]") for number, row in enumerate(rows)]
    return {instance.instance_id: instance for instance in instances}


def read_instance(row: Any, where: str) -> Instance:
    """An instance from a row of the data set; lists may be JSON texts, as on the hub.

    Raises:
        R2VError: naming what is missing.
    """
    row = row if isinstance(row, Mapping) else {}
    for name in _TEXTS:
        if not isinstance(row.get(name), str):
            raise R2VError(f"{where}: the instance has no text '{name}'; use rows as SWE-bench publishes them")
    tests = {name: _names(row.get(name)) for name in _LISTS}
    for name, found in tests.items():
        if found is None:
            raise R2VError(f"{where}: '{name}' has to be a list of test names")
    if not tests["FAIL_TO_PASS"]:
        raise R2VError(f"{where}: no test in FAIL_TO_PASS, so that doing nothing would resolve it")
    more = {name: row[name] for name in ("eval_script", "log_parser", "eval_type", "image") if row.get(name)}
    return Instance(
        **{name: row[name] for name in _TEXTS},
        version=str(row.get("version") or ""),
        fail_to_pass=tests["FAIL_TO_PASS"] or (),
        pass_to_pass=tests["PASS_TO_PASS"] or (),
        **more,
    )


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return tuple(value)
