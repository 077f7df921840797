"""Encoding a batch of prompts once, so that what follows them (samples, actions to score) can share the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import get_layer_types_and_kwargs

from r2v_core.engines.transformers.reserved import reserve

LAST = torch.tensor([-1])
FULL, SLIDING = "full_attention", "sliding_attention"


def layouts(config: PreTrainedConfig) -> set[str]:
    """Kinds of a model's layers, by transformers' names."""
    kinds, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    return set(kinds)


def bears_padding(config: PreTrainedConfig) -> bool:
    """Whether a prompt's result is the same with padding before it: not where layers count columns or keep a state."""
    return layouts(config) <= {FULL, SLIDING}


def take(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Make the cache's batch of these of its rows, each as often as it is named; for caches of all kinds."""
    cache.reorder_cache(rows)


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
    """Run the model over B prompts. What all of them begin with (the instructions) is computed once, not B times.

    With layers other than full attention nothing is shared: padding would stand between the beginning and the rest of
    a prompt, and a window counts it. Where not even padding before the prompt is borne (:func:`bears_padding`), the
    prompts have to be of one length.

    ``model`` may be a causal LM (``last`` holds logits) or a bare backbone (``last`` holds hidden states).
    """
    tokens = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    cache = DynamicCache(config=model.config)
    shared = _shared_length(tokens) if len(tokens) > 1 and layouts(model.config) <= {FULL} else 0
    if shared:
        prefix = torch.tensor([tokens[0][:shared]], device=model.device)
        _forward(model, prefix, torch.ones_like(prefix), torch.arange(shared, device=model.device)[None], cache)
        take(cache, torch.zeros(len(tokens), dtype=torch.long))
    width = max(map(len, tokens)) - shared
    ids = torch.full((len(tokens), width), int(tokenizer.pad_token_id), device=model.device)
    mask = torch.zeros((len(tokens), shared + width), dtype=torch.long, device=model.device)
    mask[:, :shared] = 1
    for row, sequence in enumerate(tokens):
        n = len(sequence) - shared
        ids[row, width - n :] = torch.tensor(sequence[shared:], device=model.device)
        mask[row, shared + width - n :] = 1
    position = mask.cumsum(-1).sub(1).clamp(min=0)
    last = _forward(model, ids, mask, position[:, shared:], cache)
    return Encoded(cache, mask, position[:, -1] + 1, last)


def _shared_length(tokens: Sequence[list[int]]) -> int:
    """How many tokens all sequences begin with; less than the shortest one's length, so that each has a rest."""
    least, most = min(tokens), max(tokens)
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return min(same, min(map(len, tokens)) - 1)


def _forward(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, position: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """One pass that extends ``cache``; the output at the last column."""
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        # an index rather than a count: a slice would be strided, and the head would copy its weights for every prompt
        **({"logits_to_keep": LAST} if model.get_output_embeddings() is not None else {}),
    )
    result: torch.Tensor = (out.logits if hasattr(out, "logits") else out.last_hidden_state)[:, -1]
    return result
