"""A causal language model in this process as teacher, through the project's own batched generation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from r2v_core.config.schema import SLMConfig, TeacherLimitsConfig
from r2v_core.digest import derive_seed, digest_of
from r2v_core.models.policy import Policy
from r2v_core.models.prompt import count_tokens
from r2v_core.teachers.chat import ChatTeacher, Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.names import TeacherEntry
from r2v_core.teachers.options import LocalOptions
from r2v_core.teachers.place import Place


@lru_cache(maxsize=1)
def _load(slm: str, cache: Path) -> tuple[Policy, dict[str, dict[str, Reply]]]:
    """The model, and by scope what it has said; stages that follow each other in one process share both."""
    return Policy.load(SLMConfig.model_validate_json(slm), cache, read=str), {}  # as it was said: read by ChatTeacher


class LocalModel:
    """Answers chats in batches; equal chats get equal replies.

    Within a scope nothing is generated twice. A reply's last bits depend on the batch that it was generated in, so it
    is not handed out in another scope, nor remembered where there is none.
    """

    def __init__(self, model: str, options: LocalOptions, cache: Path, scope: str | None = None) -> None:
        slm = SLMConfig(model=model, max_action_tokens=options.max_tokens, quantization=options.quantization)
        self.options = options
        self.policy, scopes = _load(slm.model_dump_json(), cache)
        self._said = None if scope is None else scopes.setdefault(scope, {})

    def ask(self, talks: Sequence[list[Message]]) -> list[Reply]:
        """Replies in the order of the chats."""
        said = {} if self._said is None else self._said
        prompts = [self._prompt(talk) for talk in talks]
        keys = [digest_of([prompt, self.options.temperature]) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in said}
        began = time.perf_counter()
        sampled = self.policy.sample(
            list(new.values()),
            [derive_seed("teacher", prompt) for prompt in new.values()],
            k=1,
            temperature=self.options.temperature,
            batch_size=self.options.batch_size,
        )
        share = (time.perf_counter() - began) / max(1, len(new))
        for (key, prompt), (candidate,) in zip(new.items(), sampled, strict=True):
            said[key] = Reply(
                text=candidate.text,
                tokens_in=count_tokens(self.policy.tokenizer, prompt),
                tokens_out=candidate.n_tokens,
                latency_s=share,
                cut=candidate.n_tokens >= self.options.max_tokens,
            )
        return [said[key] for key in keys]

    def _prompt(self, talk: list[Message]) -> str:
        """The rendered chat; the oldest turns are left out, after the one with the goal, until it is short enough."""
        while True:
            text = str(self.policy.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
            if len(talk) < 5 or count_tokens(self.policy.tokenizer, text) <= self.options.max_prompt_tokens:
                return text
            talk = _without_oldest_turns(talk)


def _without_oldest_turns(talk: list[Message]) -> list[Message]:
    """One exchange less: the goal, which opens the first user turn, moves to what is then the first one."""
    goal = talk[1]["content"].partition("\n\n")[0]
    rest = talk[3:]
    return [talk[0], {"role": "user", "content": f"{goal}\n\n{rest[0]['content']}"}, *rest[1:]]


def make(
    name: str, entry: TeacherEntry, options: LocalOptions, limits: TeacherLimitsConfig, place: Place
) -> ChatTeacher:
    """A teacher in this process; the limits are for those that cost something.

    Raises:
        R2VError: if the model can't be found or loaded.
    """
    model = LocalModel(entry.model, options, place.cache, place.scope)
    return ChatTeacher(
        entry.provider, entry.model, model.ask, options.history_steps, lambda reply: 0.0, place.action_form
    )
