"""Disks that are full and folders that can't be written: one line, status 2, and a run that goes on afterwards."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.runs.storage import storage_error
from tests.stages.conftest import Stage, command, environment

RUN = 'echo "--- $(cat data/runs/textworld_*/run_manifest.json | tr -d "\\n")"'
COLLECT = shlex.join(command("collect", "--overrides", "collection.episodes_per_task=20", "collection.parallel=1"))


def boxed(project: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A shell script in the project, where the file system is as bubblewrap's options say."""
    box = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--cap-drop", "ALL", *options, "--", "sh", "-c", script]
    return subprocess.run(box, cwd=project, env=environment(project), capture_output=True, text=True, timeout=120)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What is told on stderr that is not progress."""
    return [line for line in done.stderr.splitlines() if not line.startswith("[")]


def manifests(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    return [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("--- {")]


def test_a_full_disk_ends_a_run_partial_and_more_space_completes_it(project: Path, stage: Stage) -> None:
    stage("task_suite")
    runs = project / "data/runs"
    shutil.copytree(runs, project / "made")  # the full disk is mounted above the folder
    fill = "head -c $(($(df --output=avail -B1 data/runs | tail -1) - 200000)) /dev/zero > data/runs/filler"
    collect = f"{COLLECT}; echo status $?; {RUN}"
    script = f"cp -a made/. data/runs; {fill}; {collect}; rm data/runs/filler; {collect}"
    done = boxed(project, script, "--size", str(8_000_000), "--tmpfs", str(runs))
    assert len(said(done)) == 1, done.stderr
    (error,) = said(done)
    assert error.startswith("error: ") and "No space left on device" in error and "free some space" in error
    assert [line for line in done.stdout.splitlines() if "status" in line[:6]] == ["status 2", "status 0"]
    full, completed = manifests(done)
    assert (full["status"], completed["status"]) == ("partial", "done")
    assert full["run_id"] == completed["run_id"] and full["error"] == error.removeprefix("error: ")


def test_a_read_only_folder_is_refused_in_one_line(project: Path, stage: Stage) -> None:
    stage("task_suite")
    runs = project / "data/runs"
    done = boxed(project, COLLECT, "--ro-bind", str(runs), str(runs))
    assert len(said(done)) == 1, done.stderr
    (error,) = said(done)
    assert done.returncode == 2 and f"{runs}/" in error and "Read-only file system; make it writable" in error


def test_permissions_revoked_in_the_middle(project: Path, stage: Stage) -> None:
    stage("task_suite")
    wait = "while ! ls data/runs/textworld_*/trajectories.jsonl 2>/dev/null; do kill -0 $! || exit 9; sleep 0.05; done"
    sync = f"{sys.executable} -m r2v_assets.cli registry sync"
    script = (
        f"{COLLECT} & {wait}; chmod 555 data/runs/textworld_*; wait $!; echo status $?; {RUN}; "
        f"chmod 755 data/runs/textworld_*; {sync} >/dev/null; {RUN}"
    )
    done = boxed(project, script)
    assert len(said(done)) == 1, done.stderr
    (error,) = said(done)
    assert "Permission denied" in error and "status 2" in done.stdout
    closed, opened = manifests(done)
    assert (closed["status"], opened["status"]) == ("running", "partial")


def caused(cause: BaseException) -> R2VError:
    error = R2VError("f: can't write")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "x"), "MB free): No space left on device; free some space and give"),
        (PermissionError(13, "x", "a/b"), "a/b: Permission denied; give yourself access to it"),
        (RuntimeError('I/O error: Read-only file system (os error 30) at path "/a/.tmp"'), "/a/.tmp: Read-only"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "No space left"),
        (caused(OSError(122, "x")), "f: can't write"),
    ],
)
def test_what_libraries_say_of_storage_is_understood(tmp_path: Path, error: BaseException, words: str) -> None:
    found = storage_error(error, tmp_path)
    assert found is not None and words in str(found) and "\n" not in str(found)


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "x"), PermissionError(13, "x"), ValueError("No space")])
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    assert storage_error(error) is None and storage_error(R2VError("x")) is None
