"""The version, said in one place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

import r2v_core
from r2v_assets.cli import app

ROOT = Path(__file__).parents[1]


def test_the_command_says_the_packages_version() -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.output) == (0, f"r2v {r2v_core.__version__}\n")


def test_the_build_reads_it_from_the_package() -> None:
    """What a wheel would carry, without building one."""
    code = (
        "from setuptools.config.pyprojecttoml import read_configuration as read;"
        "print(read('pyproject.toml')['project']['version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == r2v_core.__version__
