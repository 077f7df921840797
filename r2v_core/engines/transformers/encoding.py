"""Encoding a batch of prompts once, so that their samples can share the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from r2v_core.engines.transformers.reserved import reserve
from r2v_core.models.prefixes import FULL, begin, extend, layouts

SLIDING = "sliding_attention"


def bears_padding(config: PreTrainedConfig) -> bool:
    """Whether a prompt's result is the same with padding before it: not where layers count columns or keep a state."""
    return layouts(config) <= {FULL, SLIDING}


@dataclass
class Encoded:
    """Keys and values of B prompts, padded on the left to a common length L."""

    cache: DynamicCache
    mask: torch.Tensor  # [B, L], 1 where there is a token
    position: torch.Tensor  # [B], position of the next token
    last: torch.Tensor  # model output at each prompt's last token: logits [B, V], or hidden states [B, H]

    def repeat(self, k: int, room: int) -> Encoded:
        """Each prompt k times, row b·k + j being copy j of prompt b, with room for ``room`` more tokens in each row.

        The cache is changed in place.
        """
        reserve(self.cache, torch.arange(len(self.mask)), k, room)
        return Encoded(
            self.cache,
            self.mask.repeat_interleave(k, dim=0),
            self.position.repeat_interleave(k),
            self.last.repeat_interleave(k, dim=0),
        )


def encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> Encoded:
    """Run the model over B prompts; what several of them begin with is computed once (:mod:`r2v_core.models.prefixes`).

    Where not even padding before the prompt is borne (:func:`bears_padding`), the prompts have to be of one length.

    ``model`` may be a causal LM (``last`` holds logits) or a bare backbone (``last`` holds hidden states).
    """
    tokens = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    pad = int(tokenizer.pad_token_id)
    begun = begin(model, tokens, pad)
    whole, last = extend(model, begun, [ids[n:] for ids, n in zip(tokens, begun.read, strict=True)], pad)
    return Encoded(whole.cache, whole.mask, torch.tensor(whole.read, device=model.device), last)
