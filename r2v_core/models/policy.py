"""The policy: the small model with a LoRA adapter, as a sampler of actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2v_core.benchmarks.actions import one_line
from r2v_core.config.schema import SLMConfig
from r2v_core.models.generation import sample_actions
from r2v_core.models.hub import load_adapter, load_lm, load_tokenizer
from r2v_core.models.prompt import count_tokens
from r2v_core.trajectory import Candidate


class Policy:
    """A loaded policy. The adapter is merged into the base weights, so that sampling costs no more than the base.

    ``read`` makes an action of what the model wrote (:mod:`r2v_core.benchmarks.actions`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        slm: SLMConfig,
        read: Callable[[str], str] = one_line,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.slm = slm
        self.read = read

    @classmethod
    def load(
        cls, slm: SLMConfig, cache: Path, adapter: Path | None = None, read: Callable[[str], str] = one_line
    ) -> Policy:
        """Load the base model and merge ``adapter`` (a folder written by peft) into it, if one is given.

        Raises:
            R2VError: if the model or the adapter can't be loaded.
        """
        model = load_lm(slm, cache)
        if adapter is not None:
            model = merge_adapter(model, adapter)
        return cls(model, load_tokenizer(slm, cache), slm, read)

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        k: int,
        temperature: float,
        batch_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Candidate]]:
        """K candidates for each prompt, in the prompts' order; ``progress`` receives the number done.

        Prompts of similar length are encoded together, so that little is spent on padding.
        """
        order = sorted(range(len(prompts)), key=lambda i: count_tokens(self.tokenizer, prompts[i]))
        found: list[list[Candidate]] = [[] for _ in prompts]
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            sampled = sample_actions(
                self.model,
                self.tokenizer,
                [prompts[i] for i in chosen],
                [seeds[i] for i in chosen],
                k=k,
                temperature=temperature,
                max_new_tokens=self.slm.max_action_tokens,
                read=self.read,
            )
            for i, candidates in zip(chosen, sampled, strict=True):
                found[i] = candidates
            if progress:
                progress(start + len(chosen))
        return found


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Merge a LoRA adapter into a model's weights (computed in float32, rounded once to the model's dtype).

    Raises:
        R2VError: if ``adapter`` holds no adapter, or one that does not fit the model.
    """
    dtype = next(model.parameters()).dtype
    quantized = getattr(model, "is_quantized", False)
    wrapped = load_adapter(model if quantized else model.to(torch.float32), adapter)
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged.eval() if quantized else merged.to(dtype).eval()
