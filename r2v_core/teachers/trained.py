"""A language model trained here as teacher: it reads what the agent reads, noise included, and can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

from r2v_core.benchmarks.actions import ACTION_FORMS
from r2v_core.config.schema import SLMConfig, TeacherLimitsConfig
from r2v_core.digest import derive_seed, digest_of
from r2v_core.engines import check_engine, open_engine
from r2v_core.engines.base import Engine
from r2v_core.errors import R2VError
from r2v_core.models.prompt import render_prompt
from r2v_core.runs.memory import Memory
from r2v_core.teachers.base import Advice, Situation
from r2v_core.teachers.chat import Reply
from r2v_core.teachers.context import TeacherContext, TrainedPolicy
from r2v_core.teachers.in_process import generate
from r2v_core.teachers.names import TeacherEntry
from r2v_core.teachers.options import TrainedOptions


@lru_cache(maxsize=1)
def _load(slm: str, cache: Path, adapter: Path, logs: Path) -> Engine:
    """The model with its adapter; chunks of jobs, and stages that follow each other in one process, share it."""
    return open_engine(SLMConfig.model_validate_json(slm), cache, adapter, logs)


class TrainedTeacher:
    """Answers situations in batches, from the prompt that the small model has in them.

    Equal prompts get equal answers; within a scope nothing is generated twice (:mod:`r2v_core.runs.memory`).
    """

    provider = "trained"

    def __init__(self, policy: TrainedPolicy, options: TrainedOptions, context: TeacherContext) -> None:
        """Load the model.

        Raises:
            R2VError: if model or adapter can't be loaded, or the engine is unknown.
        """
        slm = policy.slm.model_copy(update={"engine": options.engine, "engine_options": options.engine_options})
        check_engine(slm, "teacher.options")
        self.model = slm.model
        self.slm, self.options, self.seed = slm, options, policy.seed
        self.engine = _load(slm.model_dump_json(), context.cache, policy.adapter, context.run_dir / "logs")
        self.read = ACTION_FORMS[context.action_form]
        self._said = context.scope.memory("advice", Advice) if context.scope else None

    def act(self, situations: Sequence[Situation]) -> list[Advice]:
        """One action for each situation, in order; an empty reply is marked (``detail["malformed"]``)."""
        said = self._said if self._said is not None else Memory(Advice)
        prompts = [self._prompt(situation) for situation in situations]
        new = {key: prompt for prompt in prompts if (key := digest_of(prompt)) not in said}
        said.add(list(new), partial(self._generate, list(new.values())))
        return [said[digest_of(prompt)] for prompt in prompts]

    def _prompt(self, seen: Situation) -> str:
        return render_prompt(self.engine, self.slm, seen.instructions, seen.goal, seen.history, seen.observation).text

    def _generate(self, prompts: Sequence[str]) -> list[Advice]:
        seeds = [derive_seed(self.seed, "teacher", prompt) for prompt in prompts]
        options, limit = self.options, self.slm.max_action_tokens
        replies = generate(self.engine, prompts, seeds, options.temperature, options.batch_size, limit)
        return [self._advice(reply) for reply in replies]

    def _advice(self, reply: Reply) -> Advice:
        action = self.read(reply.text)
        return Advice(
            action,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            latency_s=reply.latency_s,
            detail={} if action else {"malformed": "the reply is empty"},
        )


def make(
    name: str, entry: TeacherEntry, options: TrainedOptions, limits: TeacherLimitsConfig, context: TeacherContext
) -> TrainedTeacher:
    """A teacher in this process; the limits are for those that cost something.

    Raises:
        R2VError: where no run of the stage train_teacher is at hand, or one of another model.
    """
    policy = context.trained
    if policy is None:
        raise R2VError(
            f"{context.role} '{name}' is trained by the stage train_teacher for partitions named after it, and can be "
            "asked in those alone; choose another name (r2v teachers lists them)"
        )
    if policy.slm.model != entry.model:
        raise R2VError(
            f"teacher '{name}' is '{entry.model}', but {policy.run_id} trained '{policy.slm.model}'; make "
            "teacher_policy anew"
        )
    return TrainedTeacher(policy, options, context)
