"""A causal language model in this process, perhaps with a LoRA adapter, as an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.transformers.generation import sample_replies
from r2v_core.engines.transformers.rows import bears_padding, rows_of
from r2v_core.engines.transformers.scoring import log_probabilities
from r2v_core.models.chat_template import ChatTemplate
from r2v_core.models.control_tokens import end_ids
from r2v_core.models.hub import load_lm, load_tokenizer, merge_adapter
from r2v_core.trajectory import Candidate


class Sampler(ChatTemplate):
    """A loaded model. The adapter is merged into the base weights, so that sampling costs no more than the base."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, slm: SLMConfig) -> None:
        super().__init__(tokenizer)
        self.model = model
        self.slm = slm

    @classmethod
    def load(cls, slm: SLMConfig, cache: Path, adapter: Path | None = None) -> Self:
        """Load the base model and merge ``adapter`` (a folder written by peft) into it, if one is given.

        Raises:
            R2VError: if the model or the adapter can't be loaded.
        """
        model = load_lm(slm, cache)
        if adapter is not None:
            model = merge_adapter(model, adapter)
        return cls(model, load_tokenizer(slm, cache), slm)

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], *, k: int, temperature: float, batch_size: int
    ) -> list[list[Candidate]]:
        """K replies to each prompt (:meth:`r2v_core.engines.base.Engine.sample`).

        Prompts of similar length are worked on together: where they are padded, little is spent on it.
        """
        pad, ends = int(self.tokenizer.pad_token_id), end_ids(self.model.generation_config, self.tokenizer)
        ids = [self.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        replies: list[list[Candidate]] = [[] for _ in prompts]
        for chosen in self._batches([len(some) for some in ids], batch_size):
            sampled = sample_replies(
                rows_of(self.model, pad),
                self.tokenizer,
                [ids[i] for i in chosen],
                [seeds[i] for i in chosen],
                k=k,
                temperature=temperature,
                max_new_tokens=self.slm.max_action_tokens,
                ends=ends,
            )
            for i, candidates in zip(chosen, sampled, strict=True):
                replies[i] = candidates
        return replies

    def _batches(self, lengths: Sequence[int], size: int) -> Iterator[list[int]]:
        """Positions of prompts to work on together: of similar length, or of one where the model bears no padding."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        one_length = not bears_padding(self.model.config)
        for _, some in groupby(order, key=lambda i: lengths[i] if one_length else 0):
            alike = list(some)
            yield from (alike[start : start + size] for start in range(0, len(alike), size))

    def score(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[list[float]]:
        """Log-probability of each continuation, end of turn included, nats."""
        pairs = [(prompt, text) for prompt, some in zip(prompts, continuations, strict=True) for text in some]
        found: list[float] = []
        for start in range(0, len(pairs), batch_size):
            found += log_probabilities(self.model, self.tokenizer, pairs[start : start + batch_size])
        scores = iter(found)
        return [[next(scores) for _ in some] for some in continuations]
