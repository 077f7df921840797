"""Runs whose process was killed outright: whoever looks next says so."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import read_manifest
from tests.registry.conftest import MakeRun

HERE = platform.node()
WRITER = """
import os, signal, sys
from filelock import FileLock
FileLock(sys.argv[1]).acquire()
print("held", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def status(registry: DataRegistry, run_id: str) -> str:
    return str(registry.sql(f"SELECT status FROM runs WHERE run_id = '{run_id}'").status[0])


@pytest.fixture
def killed(registry: DataRegistry, make_run: MakeRun) -> Path:
    """A run that was registered while it was at work, and whose process was killed then."""
    directory = make_run("killed", [["x"]], status="running", host=HERE)
    with FileLock(directory / ".lock"):
        registry.sync()
        assert status(registry, "killed") == "running" == read_manifest(directory).status
    done = subprocess.run([sys.executable, "-c", WRITER, str(directory / ".lock")], capture_output=True, text=True)
    assert done.returncode == -9 and done.stdout == "held\n"
    return directory


def test_sync_registers_it_as_partial(registry: DataRegistry, killed: Path) -> None:
    assert registry.sync().registered == ["killed"]
    assert status(registry, "killed") == "partial"
    manifest = read_manifest(killed)
    assert (manifest.status, manifest.error) == ("partial", "its process was killed") and manifest.finished_at
    assert registry.sync().registered == []


@pytest.mark.parametrize(
    "command", [["summary"], ["query"], ["show", "killed"], ["sql", "SELECT status FROM runs"]], ids=lambda c: c[0]
)
def test_commands_that_show_it_say_partial(registry: DataRegistry, killed: Path, command: list[str]) -> None:
    shown = CliRunner().invoke(app, ["registry", *command, "--project", str(registry.project)])
    assert shown.exit_code == 0 and "partial" in shown.stdout and "running" not in shown.stdout


def test_first_seen_when_dead_it_is_partial(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("unseen", [["x"]], status="running", host=HERE)
    assert registry.register(directory).status == "partial"
    assert status(registry, "unseen") == "partial"


def test_a_run_of_another_machine_is_left_alone(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("elsewhere", [["x"]], status="running", host="node17")
    registry.sync()
    registry.settle()
    assert status(registry, "elsewhere") == "running" == read_manifest(directory).status
