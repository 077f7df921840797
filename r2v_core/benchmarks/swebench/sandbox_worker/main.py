"""One request from standard input, done in a fresh copy of the repository (``base.tar`` beside it, or what the
container image has at ``root``), answered with one line of JSON:

- ``prepare``: make a plain tree a git repository of one commit, and give it back as a tar.
- ``list``, ``read``: the names of all files; the contents of some.
- ``apply``: a patch → what it changes.
- ``shell``: a command on top of changes → what it printed, and all that is changed after it.
- ``diff``: changes → the patch that git makes of them, and what is in it.
- ``modules``: what the environment has without the repository.
- ``judge``: changes and the hidden tests → how they end. Never in a box that an agent's command ran in.

The line begins with the request's seal, which nothing else in the box can read: this process can't be looked into, and
what runs beside it has no other way to know it.
"""

from __future__ import annotations

import base64
import ctypes
import io
import json
import os
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.swebench.sandbox_worker.changes import MOMENT, changed, put, survey, unpack
from r2v_core.benchmarks.swebench.sandbox_worker.commands import apply_patch, ended, git
from r2v_core.benchmarks.swebench.sandbox_worker.judging import judge, modules

_SET_DUMPABLE = 4


def prepare(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """A git repository of one commit, without hooks; as a tar."""
    git(root, request, "init", "-q", "-b", "main")
    git(root, request, "add", "-A", "-f")
    git(root, request, "commit", "-q", "--allow-empty", "-m", "The repository as it was")
    git(root, request, "repack", "-adq")
    for name in ("hooks", "logs", "info", "branches"):
        shutil.rmtree(root / ".git" / name, ignore_errors=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(root, arcname=".", filter=_plain)
    return {"tar": base64.b64encode(packed.getvalue()).decode()}


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = MOMENT
    return info


def listing(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The names of all files under version control."""
    names = git(root, request, "ls-files", "-z").decode(errors="replace").split("\0")
    return {"names": [name for name in names if name]}


def read(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Contents of files by name, base64; None for what is no file."""
    files = {name: root / name for name in request["names"]}
    return {n: base64.b64encode(p.read_bytes()).decode() if p.is_file() else None for n, p in files.items()}


def apply(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What a patch changes."""
    before = survey(root)
    problem = apply_patch(root, request, base64.b64decode(request["patch"]))
    changes, too_much = changed(root, before)
    return {"changes": changes, "problem": problem or too_much}


def shell(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run an agent's command in its workspace."""
    put(root, request["changes"])
    before = survey(root)
    status, output = ended(root, request, request["command"])
    changes, problem = changed(root, before)
    output = output.replace(str(os.getuid()), "1000")  # the box's own user is another one each time
    return {"status": status, "output": output, "changes": changes, "problem": problem}


def diff(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The patch of an agent's changes, and the paths in it."""
    put(root, request["changes"])
    git(root, request, "add", "-A")
    options = ("--cached", "--binary", "--no-color", "--no-ext-diff", "--no-renames")
    made = git(root, request, "diff", *options, "HEAD")
    names = git(root, request, "diff", *options, "--name-only", "-z", "HEAD").decode(errors="replace").split("\0")
    return {"patch": base64.b64encode(made).decode(), "names": [name for name in names if name]}


MODES = {
    "prepare": prepare,
    "list": listing,
    "read": read,
    "apply": apply,
    "shell": shell,
    "diff": diff,
    "modules": modules,
    "judge": judge,
}


def main(request: dict[str, Any]) -> None:
    """Do one request."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    root = Path(request["root"])
    unpack(root)
    answer = MODES[request["mode"]](root, request)
    print(f"\n{request['seal']}{json.dumps(answer)}", flush=True)
