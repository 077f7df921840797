"""What a model in this process says to prompts, for teachers: one reply each, generated in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence

from r2v_core.engines.base import Engine
from r2v_core.teachers.chat import Reply


def generate(
    engine: Engine, prompts: Sequence[str], seeds: Sequence[int], temperature: float, batch_size: int, max_tokens: int
) -> list[Reply]:
    """One reply to each prompt, in order; a reply's latency is its share of the wall time of all.

    Args:
        seeds: of each prompt's random numbers.
        max_tokens: what a reply of so many tokens was cut at.
    """
    began = time.perf_counter()
    sampled = engine.sample(prompts, seeds, k=1, temperature=temperature, batch_size=batch_size)
    share = (time.perf_counter() - began) / len(prompts)
    return [
        Reply(reply.text, engine.count_tokens(prompt), reply.n_tokens, share, cut=reply.n_tokens >= max_tokens)
        for prompt, (reply,) in zip(prompts, sampled, strict=True)
    ]
