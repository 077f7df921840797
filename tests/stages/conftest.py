"""A whole project in a temporary folder: the real configs, a small experiment, stages as real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r2v_core.runs.artifacts import digests
from r2v_core.runs.manifest import read_manifest, write_manifest

ROOT = Path(__file__).parents[2]

SMALL = """
defaults: [textworld/noisy]
name: small
benchmark:
  max_steps: 8
  splits: {train: 4, router: 2, validation: 2, test: 2}
  options:
    goals: [detailed]
    mix: [{family: treasure_hunter, level: 2}, {family: custom, rooms: 3, objects: 4, quest_length: 3}]
collection: {episodes_per_task: 2, explore_all_episodes: 1, parallel: 4}
paths: {cache: "{cache}"}
"""

Stage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of compiled games for all tests of a worker."""
    return tmp_path_factory.mktemp("games")


@pytest.fixture
def project(tmp_path: Path, games: Path) -> Path:
    """A project folder with the repository's configs and ``configs/small.yaml``."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "small.yaml").write_text(SMALL.replace("{cache}", str(games)))
    return tmp_path


def sealed(run_dir: Path) -> None:
    """Let a run say of its files what a test has made of them."""
    manifest = read_manifest(run_dir)
    update = {"artifact_digests": digests(run_dir, manifest.artifacts)}
    write_manifest(manifest.model_copy(update=update), run_dir)


def environment(project: Path) -> dict[str, str]:
    """The environment of a stage's process."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "R2V_PROJECT": str(project), "PYTHONPATH": path}


def command(stage: str, *arguments: str) -> list[str]:
    """The command line of a stage on the small experiment."""
    return [sys.executable, "-m", f"r2v_core.stages.{stage}", "--config", "configs/small.yaml", *arguments]


@pytest.fixture
def stage(project: Path) -> Stage:
    """Run a stage as a user would and return the finished process."""

    def run(name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(name, *arguments),
            cwd=project,
            env=environment(project),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run
