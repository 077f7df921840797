"""What a benchmark is to the pipeline: tasks, and environments that can be stepped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.errors import R2VError
from r2v_core.trajectory import Observation, Record, version_field

Split = Literal["train", "router", "validation", "test", "teacher"]
SPLITS: tuple[Split, ...] = ("train", "router", "validation", "test", "teacher")
"""train: policy and verifier; router: the router's features (templates no model was trained on);
validation: temperature and threshold; test: reported numbers; teacher: a teacher that is trained here. Its tasks are
drawn last, so that those of the others are the same with and without it."""


class Task(Record):
    """One thing to solve. Tasks that share a template never stand in different splits."""

    schema_version: int = version_field("Task")
    task_id: str
    template_id: str
    benchmark: str
    family: str
    goal: str
    split: Split
    max_steps: int = Field(ge=1, description="environment steps after which an episode is cut")
    content: str = Field(description="digest of what makes the task what it is, independent of file bytes")
    options: dict[str, Any] = Field(default_factory=dict, description="benchmark-specific, JSON values only")


class Outcome(Record):
    """What an action led to."""

    observation: Observation
    done: bool = False
    success: bool = Field(default=False, description="the benchmark's verdict so far")
    score: float = Field(default=0.0, description="in [0, 1]")
    remaining: int | None = Field(default=None, description="expert actions still needed; None where unknown or lost")
    progress: bool | None = Field(default=None, description="did this action bring the goal closer; None: unknown")
    flags: list[str] = Field(default_factory=list, description="what speaks for an attempt to forge the verdict")


class Environment(Protocol):
    """One live task. Used by one thread at a time; closed by whoever opened it."""

    task: Task

    def reset(self) -> Outcome:
        """Start over; the outcome's observation is the first thing the agent sees."""
        ...

    def step(self, action: str) -> Outcome:
        """Carry out an action. A bad action gets an observation that says so, never an exception."""
        ...

    def admissible(self) -> list[str]:
        """Actions that the environment would accept now, sorted; empty where it can't tell."""
        ...

    def hard_negatives(self) -> list[str]:
        """Further actions that are likely mistakes here, sorted, for exploration and for labelled alternatives.

        Empty where :meth:`admissible` holds mistakes enough.
        """
        ...

    def would_progress(self, action: str) -> bool | None:
        """Would this action make progress, without carrying it out? None where the benchmark can't tell."""
        ...

    def expert_action(self) -> str | None:
        """Teacher hook: what the benchmark's own expert would do now; None where there is none."""
        ...

    def close(self) -> None:
        """Release everything; safe to call twice."""
        ...


AskModel = Callable[[list[dict[str, str]]], str]
"""A chat in, what the model replies out."""
OpenModel = Callable[[str], AskModel]
"""Opens a language model by a teacher's name; what it is asked counts in the run that opened it."""


Concurrency = Literal["serial", "computing", "waiting"]
"""How environments may work at the same time, each used by one thread at a time, not always the same one.

- ``serial``: not at all, they share something; all are used by the main thread.
- ``computing``: in threads, but they need this machine's cores.
- ``waiting``: in threads, as many as there are: they wait for something else.
"""


class Benchmark(Protocol):
    """A source of tasks and of environments to solve them in."""

    name: str
    needs: str
    """What has to be installed or running for it, in a few words."""
    action_form: ActionForm
    """What an action looks like as text: ``line``, or ``code`` where line breaks count."""
    concurrency: Concurrency
    """Whether environments of it may work side by side."""
    instructions: str
    """What a language model is told about how to act here, one short paragraph."""

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """Build (or find in the cache) the tasks of one replicate, split by template.

        ``progress`` is called as ``progress(done, total)`` while files are made.
        """
        ...

    def open(self, task: Task, cache: Path, open_model: OpenModel | None = None) -> Environment:
        """Open an environment for a task of :meth:`make_tasks`, rebuilding its files if the cache lost them.

        ``open_model`` is for benchmarks whose verdicts a language model gives; where it is left out they can play, but
        not be judged by one.
        """
        ...

    def ready(self) -> str | None:
        """None if it can run on this machine, else one line that says what to install or start."""
        ...


def closed(task: Task) -> RuntimeError:
    """What an environment raises for anything after :meth:`Environment.close`."""
    return RuntimeError(f"environment of task {task.task_id} is closed")


def not_started(task: Task) -> RuntimeError:
    """What an environment raises before its first :meth:`Environment.reset`."""
    return RuntimeError(f"environment of task {task.task_id} needs reset() first")


def known_splits(splits: Mapping[str, int]) -> dict[str, int]:
    """The number of templates asked for in each split.

    Raises:
        R2VError: for a split that does not exist.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise R2VError(f"benchmark.splits: unknown split '{unknown[0]}'; use {', '.join(SPLITS)}")
    return dict(splits)
