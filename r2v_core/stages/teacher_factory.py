"""The teacher of a stage: opened before any work, and its use counted at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from r2v_core.benchmarks import action_form
from r2v_core.benchmarks.base import AskModel, Benchmark, Environment, Task
from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.runs import processes
from r2v_core.runs.memory import Scope
from r2v_core.runs.spec import StageContext
from r2v_core.stages.task_suite import read_tasks
from r2v_core.teachers import make_teacher
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.budget import usage_counts
from r2v_core.teachers.chat import ChatTeacher
from r2v_core.teachers.context import TeacherContext, TrainedPolicy
from r2v_core.teachers.judge import Judge
from r2v_core.trajectory import Episode


def open_teacher(ctx: StageContext, scope: Scope | None = None) -> Teacher:
    """The partition's teacher, with what the run's earlier attempts asked of it counted.

    Args:
        scope: names the jobs among which a model in this process says nothing twice.

    Raises:
        R2VError: if it can't be asked from here (no key, no package, no such model).
    """
    config = ctx.config.teacher
    context = replace(_teacher_context(ctx, "teacher", scope), trained=_trained(ctx))
    return make_teacher(ctx.partition.teacher, config.options, config.limits, context)


GAMES = "games.json"
"""In a run of the stage train_teacher: the templates that the teacher learnt from."""


def _trained(ctx: StageContext) -> TrainedPolicy | None:
    """What the stage train_teacher made for the partition, where its teacher is one that is trained here.

    Raises:
        R2VError: if that teacher learnt from a template that the stage's task suite has in another split.
    """
    run = ctx.inputs.get("teacher")
    if run is None:
        return None
    if "tasks" in ctx.inputs:
        others = {task.template_id: task.split for task in read_tasks(ctx.inputs["tasks"]) if task.split != "teacher"}
        shared = sorted(others.keys() & set(json.loads(run.artifact("games").read_text(encoding="utf-8"))))
        if shared:
            raise R2VError(
                f"the teacher {run.manifest.run_id} learnt from {len(shared)} templates of this experiment, e.g. "
                f"'{shared[0]}' of split '{others[shared[0]]}'; make teacher_policy with this experiment's task suite"
            )
    slm = SLMConfig.model_validate({**run.manifest.config["slm"], "model": run.manifest.model})
    return TrainedPolicy(run.manifest.run_id, slm, run.artifact("adapter"), ctx.seed)


def open_judge(ctx: StageContext) -> Judge:
    """The language model that scores candidates, where ``candidates.scored_by`` says ``judge``.

    Raises:
        R2VError: if it can't be asked from here, or is no language model.
    """
    config = ctx.config.judge
    model = make_teacher(config.teacher, config.options, config.limits, _teacher_context(ctx, "judge"))
    if not isinstance(model, ChatTeacher):
        raise R2VError(f"judge.teacher: '{config.teacher}' is not a language model; name another teacher")
    return Judge(model.ask, ctx.report.log)


def open_environment(ctx: StageContext, benchmark: Benchmark) -> Callable[[Task], Environment]:
    """A function that opens an environment for a task of the stage's benchmark."""

    def open_model(name: str) -> AskModel:
        """A language model that gives verdicts, within ``judge.limits``."""
        context = replace(_teacher_context(ctx, "judge"), usage="answer_judge")
        model = make_teacher(name, {}, ctx.config.judge.limits, context)
        if not isinstance(model, ChatTeacher):
            raise R2VError(f"benchmark.options.judge: '{name}' is not a language model; choose another teacher's name")

        def ask(messages: list[dict[str, str]]) -> str:
            (reply,) = model.ask([messages])
            if reply.refused:
                raise R2VError(reply.refused)
            return reply.text

        return ask

    return lambda task: benchmark.open(task, ctx.cache, open_model)


def _teacher_context(ctx: StageContext, role: str, scope: Scope | None = None) -> TeacherContext:
    rank, count = processes.part()
    return TeacherContext(
        project=ctx.project,
        cache=ctx.cache,
        run_dir=ctx.run_dir,
        rank=rank,
        processes=count,
        sharded=processes.shard() is not None,
        log=ctx.report.log,
        role=role,
        usage=role,
        action_form=action_form(ctx.partition.benchmark),
        scope=scope,
    )


def count_usage(ctx: StageContext, episodes: Sequence[Episode]) -> dict[str, float]:
    """For the manifest: what was asked of a teacher's API, how many of its replies were no usable action, how many
    of the small model's prompts were cut to their limit, and how many episodes ended in an error.
    """
    counts = usage_counts(ctx.run_dir)
    malformed = sum(step.malformed is not None for episode in episodes for step in episode.steps)
    errors = sum(episode.error is not None for episode in episodes)
    counts |= {"teacher_malformed": malformed} if counts or malformed else {}
    cut = sum(step.decision is not None and bool(step.decision.cut) for episode in episodes for step in episode.steps)
    counts |= {"prompts_cut": cut} if cut else {}
    return counts | ({"errors": errors} if errors else {})
