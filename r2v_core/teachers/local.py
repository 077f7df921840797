"""A causal language model in this process as teacher, through the project's own batched generation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from r2v_core.config.schema import SLMConfig, TeacherLimitsConfig
from r2v_core.digest import derive_seed, digest_of
from r2v_core.engines import check_engine, open_engine
from r2v_core.engines.base import Engine
from r2v_core.runs.memory import Memory, Scope
from r2v_core.teachers.chat import ChatTeacher, Reply
from r2v_core.teachers.context import TeacherContext
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.in_process import generate
from r2v_core.teachers.names import TeacherEntry
from r2v_core.teachers.options import LocalOptions


@lru_cache(maxsize=1)
def _load(slm: str, cache: Path) -> Engine:
    """The model; stages that follow each other in one process share it."""
    return open_engine(SLMConfig.model_validate_json(slm), cache)


class LocalModel:
    """Answers chats in batches.

    Within a scope equal chats get equal replies and nothing is generated twice; without one nothing is remembered.
    """

    def __init__(self, model: str, options: LocalOptions, cache: Path, scope: Scope | None = None) -> None:
        slm = SLMConfig(
            model=model,
            max_action_tokens=options.max_tokens,
            quantization=options.quantization,
            engine=options.engine,
            engine_options=options.engine_options,
        )
        check_engine(slm, "teacher.options")
        self.options = options
        self.engine = _load(slm.model_dump_json(), cache)
        self._said = scope.memory("replies", Reply) if scope else None

    def ask(self, talks: Sequence[list[Message]]) -> list[Reply]:
        """Replies in the order of the chats."""
        said = self._said if self._said is not None else Memory(Reply)
        prompts = [self._prompt(messages) for messages in talks]
        keys = [digest_of([prompt, self.options.temperature]) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in said}
        said.add(list(new), lambda: self._generate(list(new.values())))
        return [said[key] for key in keys]

    def _generate(self, prompts: Sequence[str]) -> list[Reply]:
        options, seeds = self.options, [derive_seed("teacher", prompt) for prompt in prompts]
        return generate(self.engine, prompts, seeds, options.temperature, options.batch_size, options.max_tokens)

    def _prompt(self, messages: list[Message]) -> str:
        """The rendered chat; the oldest turns are left out, after the one with the goal, until it is short enough."""
        while True:
            text = self.engine.render(messages)
            if len(messages) < 5 or self.engine.count_tokens(text) <= self.options.max_prompt_tokens:
                return text
            messages = _without_oldest_turns(messages)


def _without_oldest_turns(messages: list[Message]) -> list[Message]:
    """One exchange less: the goal, which opens the first user turn, moves to what is then the first one."""
    goal = messages[1]["content"].partition("\n\n")[0]
    rest = messages[3:]
    return [messages[0], {"role": "user", "content": f"{goal}\n\n{rest[0]['content']}"}, *rest[1:]]


def make(
    name: str, entry: TeacherEntry, options: LocalOptions, limits: TeacherLimitsConfig, context: TeacherContext
) -> ChatTeacher:
    """A teacher in this process; the limits are for those that cost something.

    Raises:
        R2VError: if the model can't be found or loaded.
    """
    model = LocalModel(entry.model, options, context.cache, context.scope)
    return ChatTeacher(
        entry.provider, entry.model, model.ask, options.history_steps, lambda reply: 0.0, context.action_form
    )
