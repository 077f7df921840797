"""What a model says next behind each of the samples under way: all in one tree, or in a padded batch.

The batch is for models whose layers keep a window or a state (:func:`r2v_core.models.prefix_tree.bears_a_tree`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from r2v_core.models.prefix_tree import FULL, PrefixTree, bears_a_tree, layouts

SLIDING = "sliding_attention"


class Rows(Protocol):
    """K samples of each of B prompts; row b·K + j is sample j of prompt b."""

    def first(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``[D, V]`` behind the prompts' token ids, and which of them each of the B·K rows goes by."""
        ...

    def next(self, keep: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the rows that are kept, behind one more token of each.

        Args:
            keep: ``[R]`` long, places among the rows that were kept last.
            tokens: ``[R]`` long.
        """
        ...


class Shared:
    """Rows as nodes of a tree: those that have been the same so far are computed once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._tree = PrefixTree(model)
        self._nodes: list[int] = []

    def first(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._nodes = [node for ids in prompts for node in [self._tree.add(ids)] * k]
        return self._logits()

    def next(self, keep: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = zip(keep.tolist(), tokens.tolist(), strict=True)
        self._nodes = [self._tree.add([token], self._nodes[row]) for row, token in rows]
        return self._logits()

    def _logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        place = {node: i for i, node in enumerate(dict.fromkeys(self._nodes))}
        logits = self._tree.outputs(list(place))
        return logits, torch.tensor([place[node] for node in self._nodes], device=logits.device)


def bears_padding(config: PreTrainedConfig) -> bool:
    """Whether a prompt's result is the same with padding before it: not where layers count columns or keep a state."""
    return layouts(config) <= {FULL, SLIDING}


class Padded:
    """Rows of a batch, padded on the left, each prompt encoded once and its cache repeated K times.

    Where not even padding before the prompt is borne (:func:`bears_padding`), the prompts have to be of one length.
    """

    def __init__(self, model: PreTrainedModel, pad: int) -> None:
        self._model, self._pad = model, pad

    def first(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[torch.Tensor, torch.Tensor]:
        width, device = max(map(len, prompts)), self._model.device
        ids = torch.tensor([[self._pad] * (width - len(some)) + list(some) for some in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(some)) + [1] * len(some) for some in prompts], device=device)
        self._cache = DynamicCache(config=self._model.config)
        logits = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=mask.cumsum(-1).sub(1).clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.tensor([-1], device=device),  # a slice would have the head copy its weights
        ).logits[:, -1]
        every = torch.arange(len(prompts), device=device).repeat_interleave(k)
        self._cache.reorder_cache(every)
        self._mask, self._position = mask[every], mask.sum(-1)[every]
        return logits, every

    def next(self, keep: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(keep) < len(self._mask):
            self._cache.reorder_cache(keep)
            self._mask, self._position = self._mask[keep], self._position[keep]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(keep), 1)], dim=-1)
        logits = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._position[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        self._position = self._position + 1
        return logits, torch.arange(len(keep), device=logits.device)


def rows_of(model: PreTrainedModel, pad: int) -> Rows:
    """Rows for one batch of a model's."""
    return Shared(model) if bears_a_tree(model) else Padded(model, pad)
