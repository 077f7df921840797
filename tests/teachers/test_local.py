"""The language model in this process as teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.runs.memory import Scope
from r2v_core.teachers.local import LocalModel
from r2v_core.teachers.options import LocalOptions


def test_a_chat_that_was_met_before_is_not_generated_again(
    tiny_slm: SLMConfig, model_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[str] = []
    sample = Sampler.sample

    def counted(self: Sampler, prompts: list[str], *args: Any, **options: Any) -> Any:
        generated.extend(prompts)
        return sample(self, prompts, *args, **options)

    monkeypatch.setattr(Sampler, "sample", counted)
    chats = [[{"role": "system", "content": "You play."}, {"role": "user", "content": text}] for text in "abab"]
    options = LocalOptions(max_tokens=5)
    first = LocalModel(tiny_slm.model, options, model_cache, Scope(tmp_path, "one", "play")).ask(chats)
    assert len(generated) == 2 and first[0] == first[2] != first[1] and first[0].tokens_in > 0
    again = LocalModel(tiny_slm.model, options, model_cache, Scope(tmp_path, "one", "play")).ask(
        chats[1:2]
    )  # as the next evaluation opens it
    assert len(generated) == 2 and again == first[1:2]
    LocalModel(
        tiny_slm.model, LocalOptions(max_tokens=5, temperature=0.9), model_cache, Scope(tmp_path, "one", "play")
    ).ask(chats[:1])
    assert len(generated) == 3
    LocalModel(tiny_slm.model, options, model_cache, Scope(tmp_path, "two", "play")).ask(
        chats[:1]
    )  # another chunk of jobs: batches of its own
    assert len(generated) == 4
    alone = LocalModel(tiny_slm.model, options, model_cache)
    assert alone.ask(chats[:1]) and alone.ask(chats[:1]) and len(generated) == 6
