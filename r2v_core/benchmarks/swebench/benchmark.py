"""SWE-bench: repair a bug in a repository, in a workspace with a shell, judged by hidden tests.

This module says which tasks there are; :mod:`.data` reads the instances, :mod:`.build` makes some,
:mod:`.env` plays them in the boxes of :mod:`.runtime`, :mod:`.judge` grades. Importing it needs
no package of the benchmark's.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.benchmarks.base import SPLITS, Concurrency, OpenModel, Split, Task, known_splits
from r2v_core.benchmarks.swebench.boxes import Execution, Where
from r2v_core.benchmarks.swebench.data import Instance, built_folder, load_instances
from r2v_core.benchmarks.swebench.judge import MISSING, docker_problem, has_grader
from r2v_core.benchmarks.swebench.repositories import environment_of, repository_of
from r2v_core.digest import rng
from r2v_core.errors import R2VError, nearest
from r2v_core.sandbox import find_backend


class SweBenchOptions(BaseModel):
    """``benchmark.options`` of SWE-bench."""

    model_config = ConfigDict(extra="forbid")

    instances: str | None = Field(
        default=None, description="JSONL file of instances, or a hub id; null: those that 'r2v swebench build' made"
    )
    hub_split: str = Field(default="test", description="split of a hub data set")
    only: list[str] = Field(default_factory=list, description="ids of the instances to use; empty: all")
    folder: str | None = Field(
        default=None,
        description="built instances, their repositories and environments; null: $R2V_SWEBENCH, else data/swebench",
    )
    execution: Execution = Field(
        default="local",
        description="local: bubblewrap and a prepared virtual environment; apptainer, docker: the official images "
        "(docker: judged by the official harness)",
    )
    template: Literal["repo", "instance"] = Field(
        default="repo",
        description="what is never in two splits; instances of one repository show each other's fixes",
    )
    labels: Literal["auto", "tests", "plan"] = Field(
        default="auto",
        description="what tells progress: tests (the hidden ones, after every change), plan (what is left of the "
        "reference patch; the tests run on submit alone), auto: tests with local execution, else plan",
    )
    command_s: int = Field(default=60, ge=1, description="seconds that one command may take")
    tests_s: int = Field(default=300, ge=1, description="seconds that the hidden tests may take")
    memory_mb: int = Field(default=2048, ge=64, description="memory of a box")
    disk_mb: int = Field(default=256, ge=16, description="size of a box's file systems, and of one file")


class SweBench:
    """A task is an instance; the template is its repository, unless options say otherwise."""

    name = "swebench"
    runs_model_code = True
    needs = "the package swebench, git and bubblewrap, and instances (r2v swebench build); or Docker or Apptainer"
    action_form: ActionForm = "code"
    concurrency: Concurrency = "computing"
    instructions = (
        "You repair a bug in a repository. Reply with one action. `run COMMAND` in a shell; `view PATH FIRST-LAST` "
        "opens lines; `create PATH`, then the file's text; `undo PATH`; `submit` once it works, which ends the task. "
        "An edit has lines of its own: `edit PATH`, `<<<< old`, lines as they are in the file, `==== new`, what takes "
        "their place, `>>>> end`. Hidden tests decide; your changes to tests don't count."
    )
    Options = SweBenchOptions

    def __init__(self, options: SweBenchOptions, splits: Mapping[str, int], max_steps: int) -> None:
        self.options = options
        self.splits = known_splits(splits)
        self.max_steps = max_steps
        self.folder = built_folder(options.folder)

    def ready(self) -> str | None:
        """None where instances, grader and a place to run them are at hand."""
        try:
            if not has_grader():
                raise R2VError(MISSING)
            self._check_execution()
            found = self._instances()
            if self.options.execution == "local":
                first = next(iter(found.values()))
                repository_of(first, self.folder)
                environment_of(first, self.folder)
        except R2VError as error:
            return str(error)
        return None

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """One replicate's tasks, in the order of splits: a seeded draw of templates without replacement.

        Raises:
            R2VError: if the splits ask for more templates than there are.
        """
        by_template: dict[str, list[Instance]] = {}
        for instance in self._instances().values():
            by_template.setdefault(self._template(instance), []).append(instance)
        templates = sorted(by_template)
        wanted = [split for split in SPLITS for _ in range(self.splits.get(split, 0))]
        if len(wanted) > len(templates):
            what = "repositories" if self.options.template == "repo" else "instances"
            raise R2VError(
                f"benchmark.splits: {len(wanted)} templates asked for ({self.splits}), but there are {len(templates)} "
                f"{what}; ask for fewer"
            )
        drawn = rng(seed, "swebench", "tasks").permutation(len(templates))[: len(wanted)].tolist()
        if progress:
            progress(len(wanted), len(wanted))
        return [
            self._task(instance, split)
            for i, split in zip(drawn, wanted, strict=True)
            for instance in by_template[templates[i]]
        ]

    def open(self, task: Task, cache: Path, open_model: OpenModel | None = None) -> Any:
        """The workspace of a task.

        Raises:
            R2VError: if the instance here is another one than the task's, or can't be run.
        """
        from r2v_core.benchmarks.swebench.env import SweBenchEnv
        from r2v_core.benchmarks.swebench.runtime import runtime_for

        instance = self._instances().get(task.task_id)
        if instance is None or instance.content != task.content:
            raise R2VError(
                f"Task {task.task_id}: the instances here have none of that name, or a different one; use the file "
                "that the tasks were made from, or make the task suite again"
            )
        of = self.options
        where = Where(of.execution, self.folder.resolve(), of.command_s, of.tests_s, of.memory_mb, of.disk_mb)
        labels = of.labels if of.labels != "auto" else "tests" if of.execution == "local" else "plan"
        return SweBenchEnv(task, runtime_for(instance, where), labels)

    def _instances(self) -> dict[str, Instance]:
        options = self.options
        found = load_instances(options.instances, self.folder, options.hub_split)
        for name in options.only:
            if name not in found:
                raise R2VError(f"benchmark.options.only: no instance '{name}'.{nearest(name, found)}")
        return {name: found[name] for name in options.only} if options.only else found

    def _check_execution(self) -> None:
        """Whether there is a place to run things.

        Raises:
            R2VError: if not, with what to do.
        """
        execution = self.options.execution
        if execution == "docker":
            problem = docker_problem()
            if problem:
                raise R2VError(problem)
        elif execution == "apptainer":
            find_backend("apptainer", image="the instance's own")
        else:
            find_backend("bubblewrap")
            if not shutil.which("git"):
                raise R2VError("git is missing: apt install git")

    def _template(self, instance: Instance) -> str:
        return instance.repo if self.options.template == "repo" else instance.instance_id

    def _task(self, instance: Instance, split: Split) -> Task:
        return Task(
            task_id=instance.instance_id,
            template_id=self._template(instance),
            benchmark=self.name,
            family=instance.repo,
            goal=instance.problem_statement.strip(),
            split=split,
            max_steps=self.max_steps,
            content=instance.content,
        )
