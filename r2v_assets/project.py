"""Where the project is, for code that Dagster may load from any working directory."""

from __future__ import annotations

from pathlib import Path

from r2v_core.runs.directories import project_root
from r2v_core.stages.experiments import DEFAULT_PATH, Experiment, load_experiments


def root() -> Path:
    """``$R2V_PROJECT``, else the nearest folder upwards with an experiment list, else this checkout."""
    found = project_root()
    return found if (found / DEFAULT_PATH).is_file() else Path(__file__).resolve().parents[1]


def workspace_file() -> Path:
    """The file that names the project's code location to webserver and daemon."""
    own = root() / "workspace.yaml"
    return own if own.is_file() else Path(__file__).resolve().parents[1] / "workspace.yaml"


def experiments() -> dict[str, Experiment]:
    """The project's experiments, '<benchmark>:<teacher>[@<variant>]' → config."""
    return load_experiments(root() / DEFAULT_PATH).experiments


def seeds() -> list[int]:
    """The project's seeds, each of them a replicate of every experiment."""
    return load_experiments(root() / DEFAULT_PATH).seeds
