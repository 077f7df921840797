"""Keys and values of samples under way in memory set aside once, where a dynamic cache is copied at every token."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """A full-attention layer's cache for k copies of each row, with room for tokens to come.

    What attention reads is a view of the filled part: the same numbers in the same order as if they had been
    concatenated, and no mask over room that is empty.
    """

    def __init__(self, layer: DynamicLayer, k: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._stored = [_copies(tensor, k, room) for tensor in (layer.keys, layer.values)]
        self._fill(layer.get_seq_length())

    def _fill(self, length: int) -> None:
        self.keys, self.values = (tensor[..., :length, :] for tensor in self._stored)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens' ``[B, heads, new, width]`` behind the old ones; all keys and values so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[..., start:end, :] = new
        self._fill(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Make the batch of these of its rows, room included."""
        self._stored = [tensor.index_select(0, beam_idx.to(tensor.device)) for tensor in self._stored]
        self._fill(self.get_seq_length())


def reserve(cache: DynamicCache, rows: torch.Tensor, k: int, room: int) -> None:
    """Repeat each of the batch's ``rows`` k times, with room for ``room`` more tokens where a layer keeps all of them.

    Windows keep a fixed number of tokens, and linear layers a state: those are repeated as they are.
    """
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = ReservedLayer(layer, k, room)
        else:
            layer.reorder_cache(rows.repeat_interleave(k))


def _copies(tensor: torch.Tensor, k: int, room: int) -> torch.Tensor:
    """``[B·k, heads, L + room, width]``: each row of ``[B, heads, L, width]`` k times, the room not filled."""
    rows, heads, length, width = tensor.shape
    stored = tensor.new_empty(rows, k, heads, length + room, width)
    stored[..., :length, :] = tensor[:, None]
    return stored.flatten(0, 1)
