"""What a teacher may know of the run that it works for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.config.schema import SLMConfig
from r2v_core.console import say
from r2v_core.runs.memory import Scope


def _to_stderr(line: str) -> None:
    say(line, error=True)


@dataclass(frozen=True)
class TrainedPolicy:
    """What the stage train_teacher made."""

    run_id: str
    slm: SLMConfig
    """The model that was trained, and how it is prompted."""
    adapter: Path
    seed: int
    """The partition's, which sampling at a temperature derives its random numbers from."""


@dataclass(frozen=True)
class TeacherContext:
    """Folders, the share of several processes, and where warnings go."""

    project: Path
    cache: Path
    run_dir: Path
    rank: int = 0
    processes: int = 1
    sharded: bool = False
    """Whether these are shards, which do not begin and end together (:mod:`r2v_core.runs.processes`)."""
    log: Callable[[str], None] = _to_stderr
    role: str = "teacher"
    """The config section that the model's options and limits stand in: ``teacher`` or ``judge``."""
    usage: str = "teacher"
    """What its calls are counted as, in ``<usage>_usage.json`` and the manifest."""
    action_form: ActionForm = "line"
    """What the benchmark's actions look like."""
    trained: TrainedPolicy | None = None
    """What a teacher of the provider ``trained`` plays with."""
    scope: Scope | None = None
    """The jobs among which a model in this process says nothing twice (:mod:`r2v_core.runs.memory`)."""
