"""What runs inside the box of a SWE-bench workspace. Standard library only; the pipeline sends this file as text.

It reads one request from standard input, does it in a fresh copy of the repository (``base.tar`` beside it, or what the
container image has at ``root``) and answers with one line of JSON:

- ``prepare``: make a plain tree a git repository of one commit, and give it back as a tar.
- ``list``, ``read``: the names of all files; the contents of some.
- ``apply``: a patch → what it changes.
- ``shell``: a command on top of changes → what it printed, and all that is changed after it.
- ``diff``: changes → the patch that git makes of them.
- ``judge``: a patch and the hidden tests → the log of their run. Never in a box that an agent's command ran in.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

MOMENT = 1577836800  # every file is from 2020-01-01, so that listings don't depend on when they are made
SKIPPED = {"__pycache__", ".pytest_cache", ".mypy_cache"}
"""Folders that running Python leaves behind: no change of the repository."""
LARGEST, MOST = 16 << 20, 2000
"""Bytes and number of changed files that are kept from one command to the next."""
SHOWN = 100_000
"""Bytes kept of the beginning, and as many of the end, of what a command printed."""
LOGGED = 16 << 20
"""The same for what the hidden tests print, none of which may get lost."""

APPLY = (
    ["git", "apply", "--verbose"],
    ["git", "apply", "--verbose", "--3way"],
    ["patch", "--batch", "--forward", "--fuzz=5", "-p1", "-i"],
)
"""How a patch is applied, the next one if one fails: as the official harness does, but never in parts."""

Changes = dict[str, Any]
"""Path → ``{"data": base64, "executable": bool}``, ``{"link": target}``, or None for what is gone."""


def is_test_file(path: str) -> bool:
    """Whether a file belongs to the tests or decides how they run: what a verdict takes from the repository alone."""
    *folders, name = path.lower().split("/")
    stem = name.rsplit(".", 1)[0]
    return (
        any(folder in ("test", "tests", "testing", "e2e") for folder in folders)
        or stem in ("test", "tests", "conftest", "sitecustomize", "usercustomize")
        or stem.startswith("test_")
        or stem.endswith(("_test", "_tests"))
        or name in ("pytest.ini", ".pytest.ini", "tox.ini")
    )


def unpack(root: Path) -> None:
    """The repository's files, if they came along."""
    archive = Path("base.tar")
    if archive.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "fully_trusted_filter"):
                tar.extractall(root, filter="fully_trusted")
            else:
                tar.extractall(root)
        archive.write_bytes(b"")  # the folder is not ours, so that it stays, empty


def put(root: Path, changes: Changes) -> None:
    """Carry out changes: first what is gone, then what is there."""
    for name, change in changes.items():
        path = root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif change is not None and path.is_dir():
            shutil.rmtree(path)
    for name, change in sorted(changes.items()):
        if change is None:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "link" in change:
            path.symlink_to(change["link"])
            continue
        path.write_bytes(base64.b64decode(change["data"]))
        path.chmod(0o755 if change["executable"] else 0o644)
        os.utime(path, (MOMENT, MOMENT))


def survey(root: Path) -> dict[str, tuple[int, ...]]:
    """Every file's path and what changes when it does."""
    found: dict[str, tuple[int, ...]] = {}
    for folder, names, files in os.walk(root):
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        names[:] = sorted(set(names) - SKIPPED - set(links))
        for name in [*files, *links]:
            path = Path(folder) / name
            told = path.lstat()
            relative = path.relative_to(root).as_posix()
            if _is_text(relative) and (stat.S_ISREG(told.st_mode) or stat.S_ISLNK(told.st_mode)):
                found[relative] = (told.st_mode, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)
    return found


def changed(root: Path, before: dict[str, tuple[int, ...]]) -> tuple[Changes, str]:
    """What is no more as ``before``, and why it can't be kept, if so."""
    after = survey(root)
    changes: Changes = {name: None for name in before if name not in after}
    size = 0
    for name, told in after.items():
        if before.get(name) == told:
            continue
        path = root / name
        if path.is_symlink():
            changes[name] = {"link": os.readlink(path)}  # noqa: PTH115 - as it is written
            continue
        size += told[1]
        if size > LARGEST or len(changes) > MOST:
            return {}, f"it left more than {LARGEST >> 20} MB or {MOST} files changed"
        data = base64.b64encode(path.read_bytes()).decode()
        changes[name] = {"data": data, "executable": bool(told[0] & 0o100)}
    return changes, ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def environment(request: dict[str, Any]) -> dict[str, str]:
    """The variables of whatever runs: fixed, but for what the request adds."""
    fixed = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "COLUMNS": "100",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    for who in ("AUTHOR", "COMMITTER"):
        fixed |= {f"GIT_{who}_NAME": "agent", f"GIT_{who}_EMAIL": "agent@localhost"}
        fixed |= {f"GIT_{who}_DATE": f"{MOMENT} +0000"}
    return fixed | request["environment"]


def git(root: Path, request: dict[str, Any], *arguments: str) -> bytes:
    """Run git; what it printed.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    return subprocess.run(
        ["git", *arguments],
        cwd=root,
        env=environment(request),
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    ).stdout


def ended(root: Path, request: dict[str, Any], command: str, most: int = SHOWN) -> tuple[int | None, str]:
    """Run a shell command to its end or to the limit of time (status None); everything it started is ended, too."""
    shell = shutil.which("bash") or "/bin/sh"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [shell, "-c", command], cwd=root, env=environment(request), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status: int | None = process.wait(request["seconds"])
        except subprocess.TimeoutExpired:
            status = None
        with suppress(ProcessLookupError):  # nothing is left
            if os.getpid() < 100:  # a process namespace of our own: nobody else is here
                os.kill(-1, signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return status, _read(output, most)


def _read(output: Any, most: int) -> str:
    """Beginning and end of what was printed, as text."""
    size = output.seek(0, os.SEEK_END)
    output.seek(0)
    data = output.read(2 * most if size <= 2 * most else most)
    text = data.decode(errors="replace")
    if size > 2 * most:
        output.seek(-most, os.SEEK_END)
        text += f"\n[{size - 2 * most} bytes left out]\n" + output.read().decode(errors="replace")
    return str(text)


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
    problem = _apply(root, request, base64.b64decode(request["patch"]))
    changes, too_much = changed(root, before)
    return {"changes": changes, "problem": problem or too_much}


def _apply(root: Path, request: dict[str, Any], patch: bytes) -> str:
    """Apply a patch; what is wrong with it, if none of the ways works."""
    if not patch.strip():
        return ""
    path, problem = Path(tempfile.gettempdir(), "patch.diff"), ""
    path.write_bytes(patch)
    for command in APPLY:
        if not shutil.which(command[0]):
            continue
        done = subprocess.run(
            [*command, str(path)], cwd=root, env=environment(request), check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode == 0:
            return ""
        problem = problem or done.stdout.decode(errors="replace")
        git(root, request, "reset", "-q", "--hard")
        git(root, request, "clean", "-qfd")
    return problem or "the patch does not apply"


def shell(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Run an agent's command in its workspace."""
    put(root, request["changes"])
    before = survey(root)
    status, output = ended(root, request, request["command"])
    changes, problem = changed(root, before)
    output = output.replace(str(os.getuid()), "1000")  # the box's own user is another one each time
    return {"status": status, "output": output, "changes": changes, "problem": problem}


def diff(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The patch of an agent's changes."""
    put(root, request["changes"])
    git(root, request, "add", "-A")
    made = git(root, request, "diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "--no-renames", "HEAD")
    return {"patch": base64.b64encode(made).decode()}


def judge(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The log of the hidden tests on a patch, with the official harness' markers.

    What the patch does to test files is undone first; then the tests are those of the instance.
    """
    marks = request["marks"]
    if problem := _apply(root, request, base64.b64decode(request["patch"])):
        return {"log": f"{marks['apply_failed']}:\n{problem}"}
    git(root, request, "add", "-A")
    touched = git(root, request, "diff", "--cached", "--name-only", "--no-renames", "-z", "HEAD")
    for name in filter(None, touched.decode(errors="replace").split("\0")):
        if is_test_file(name):
            _undo(root, request, name)
    if problem := _apply_tests(root, request):
        return {"log": f"{marks['tests_error']}:\n{problem}"}
    status, output = ended(root, request, request["command"], LOGGED)
    if status is None:
        return {"log": f"{output}\n{marks['timeout']}: {request['seconds']} s"}
    return {"log": f"{marks['start']}\n{output}\n{marks['end']}\n{marks['exit_code']}: {status}\n"}


def _undo(root: Path, request: dict[str, Any], name: str) -> None:
    try:
        git(root, request, "checkout", "-q", "HEAD", "--", name)
    except subprocess.CalledProcessError:  # it is new
        git(root, request, "rm", "-q", "-f", "--cached", "--", name)
        (root / name).unlink()


def _apply_tests(root: Path, request: dict[str, Any]) -> str:
    path = Path(tempfile.gettempdir(), "tests.diff")
    path.write_bytes(base64.b64decode(request["test_patch"]))
    try:
        if path.stat().st_size:
            git(root, request, "apply", "--verbose", str(path))
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode(errors="replace"))
    path.unlink()
    return ""


MODES = {
    "prepare": prepare,
    "list": listing,
    "read": read,
    "apply": apply,
    "shell": shell,
    "diff": diff,
    "judge": judge,
}


def main(request: dict[str, Any]) -> None:
    """Do one request."""
    root = Path(request["root"])
    unpack(root)
    answer = MODES[request["mode"]](root, request)
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.load(sys.stdin))
