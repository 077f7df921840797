"""Commands in the box: git, shells with a limit of time, and patches."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.swebench.sandbox_worker.changes import MOMENT

SHOWN = 100_000
"""Bytes kept of the beginning, and as many of the end, of what a command printed."""

APPLY = (
    ["git", "apply", "--verbose"],
    ["git", "apply", "--verbose", "--3way"],
    ["patch", "--batch", "--forward", "--fuzz=5", "-p1", "-i"],
)
"""How a patch is applied, the next one if one fails: as the official harness does, but never in parts."""


def environment(request: Mapping[str, Any]) -> dict[str, str]:
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
    return fixed | dict(request["environment"])


def git(root: Path, request: Mapping[str, Any], *arguments: str) -> bytes:
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


def ended(
    root: Path,
    request: Mapping[str, Any],
    command: str,
    most: int = SHOWN,
    variables: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> tuple[int | None, str]:
    """Run a shell command to its end or to the limit of time (status None); everything it started is ended, too."""
    shell = shutil.which("bash") or "/bin/sh"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [shell, "-c", command], cwd=root, env=environment(request) | dict(variables or {}),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=descriptors,
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


def apply_patch(root: Path, request: Mapping[str, Any], patch: bytes) -> str:
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
