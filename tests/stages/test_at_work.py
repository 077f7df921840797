"""The same thing asked for twice at once is made once."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from r2v_core.runs.manifest import read_manifest
from tests.stages.conftest import Stage, command, environment

SLOW = ("--overrides", "collection.episodes_per_task=30", "collection.parallel=1")


def runs(project: Path) -> list[Path]:
    return sorted(path for path in (project / "data/runs").iterdir() if path.name.startswith("textworld_"))


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("collect", *SLOW, *arguments),
        cwd=project,
        env=environment(project),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def first(project: Path, stage: Stage) -> subprocess.Popen[str]:
    """A collection that is at work and has some episodes."""
    stage("task_suite")
    process = start(project)
    while not list((project / "data/runs").glob("textworld_*/trajectories.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


def test_the_second_one_names_the_first_or_waits_for_it(
    project: Path, stage: Stage, first: subprocess.Popen[str]
) -> None:
    (at_work,) = runs(project)
    waiting = start(project, "--wait")
    refused = stage("collect", *SLOW, check=False)
    assert (
        refused.returncode == 2
        and f"error: run {at_work.name} is making this already (process {first.pid} on " in refused.stderr
    )
    assert "--wait" in refused.stderr and "Traceback" not in refused.stderr
    assert waiting.poll() is None and first.poll() is None
    assert first.wait() == 0
    told = waiting.communicate()[1]
    assert waiting.returncode == 0
    assert f"waiting for run {at_work.name}" in told and "ended as done; its result is used" in told
    assert runs(project) == [at_work] and read_manifest(at_work).status == "done"


def test_who_waited_takes_up_what_a_killed_one_left(project: Path, first: subprocess.Popen[str]) -> None:
    (at_work,) = runs(project)
    waiting = start(project, "--wait")
    assert waiting.stderr is not None
    while "waiting for run" not in waiting.stderr.readline():
        assert waiting.poll() is None
    first.kill()
    first.wait()
    told = waiting.communicate()[1]
    assert waiting.returncode == 0 and f"resuming run {at_work.name}" in told
    assert runs(project) == [at_work] and read_manifest(at_work).status == "done"
