"""What prompts begin with, encoded once: the instructions for a whole batch, a goal for all states of its task.

Only with full attention: padding stands between a beginning and the rest of a prompt, and a window would count it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

FULL = "full_attention"
LAST = torch.tensor([-1])
PASS = 64
"""Tokens that a pass of its own for the groups has to save."""


def layouts(config: PreTrainedConfig) -> set[str]:
    """Kinds of a model's layers, by transformers' names."""
    kinds, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    return set(kinds)


def take(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Make the cache's batch of these of its rows, each as often as it is named; for caches of all kinds."""
    cache.reorder_cache(rows)


@dataclass
class Begun:
    """B prompts of which the beginnings are encoded."""

    cache: DynamicCache
    """Keys and values of S columns; empty where nothing is shared."""
    mask: torch.Tensor  # [B, S], 1 where there is a token
    read: list[int]
    """Tokens of each prompt that are in the cache; fewer than it has."""


def begin(model: Any, tokens: Sequence[list[int]], pad: int) -> Begun:
    """Encode what all prompts begin with once, and then what groups of them go on with, where that saves anything.

    Args:
        model: a causal LM or a bare backbone, in inference mode.
        tokens: ids of B prompts, each of one at least.
        pad: token id that fills up rows.
    """
    cache, rows = DynamicCache(config=model.config), len(tokens)
    nothing = Begun(cache, torch.zeros((rows, 0), dtype=torch.long, device=model.device), [0] * rows)
    common = shared_length(tokens) if rows > 1 and layouts(model.config) <= {FULL} else 0
    if not common:
        return nothing
    begun = extend(model, Begun(cache, nothing.mask[:1], [0]), [tokens[0][:common]], pad)[0]
    groups = _groups(tokens, common)
    heads = [
        tokens[group[0]][common : shared_length([tokens[row] for row in group])] if len(group) > 1 else []
        for group in groups
    ]
    group_of = {row: i for i, group in enumerate(groups) for row in group}
    rests = max(len(ids) - common for ids in tokens)
    left = max(len(ids) - common - len(heads[group_of[row]]) for row, ids in enumerate(tokens))
    if len(groups) * max(map(len, heads)) + rows * left + PASS <= rows * rests:
        take(cache, torch.zeros(len(groups), dtype=torch.long))
        every = Begun(cache, begun.mask.expand(len(groups), -1), begun.read * len(groups))
        begun = extend(model, every, heads, pad)[0]
    else:
        group_of = dict.fromkeys(range(rows), 0)
    chosen = [group_of[row] for row in range(rows)]
    take(cache, torch.tensor(chosen))
    return Begun(cache, begun.mask[chosen], [begun.read[i] for i in chosen])


def extend(model: Any, begun: Begun, rests: Sequence[Sequence[int]], pad: int) -> tuple[Begun, torch.Tensor]:
    """Encode what comes next of each row, padded on the left.

    Returns:
        All that is encoded then, and the model's output at the last column: logits ``[B, V]``, or a backbone's
        hidden states ``[B, H]``.
    """
    width, rows = max(map(len, rests)), len(rests)
    ids = torch.full((rows, width), pad, device=model.device)
    mask = torch.zeros((rows, width), dtype=torch.long, device=model.device)
    for row, sequence in enumerate(rests):
        start = width - len(sequence)
        ids[row, start:] = torch.tensor(sequence, dtype=torch.long, device=model.device)
        mask[row, start:] = 1
    mask = torch.cat([begun.mask, mask], dim=-1)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=mask.cumsum(-1).sub(1).clamp(min=0)[:, -width:],
        past_key_values=begun.cache,
        use_cache=True,
        # an index rather than a count: a slice would be strided, and the head would copy its weights for every prompt
        **({"logits_to_keep": LAST} if model.get_output_embeddings() is not None else {}),
    )
    last = (out.logits if hasattr(out, "logits") else out.last_hidden_state)[:, -1]
    return Begun(begun.cache, mask, [n + len(rest) for n, rest in zip(begun.read, rests, strict=True)]), last


def shared_length(tokens: Sequence[list[int]]) -> int:
    """How many tokens all sequences begin with; less than the shortest one's length, so that each has a rest."""
    least, most = min(tokens), max(tokens)
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return min(same, min(map(len, tokens)) - 1)


def _groups(tokens: Sequence[list[int]], common: int) -> list[list[int]]:
    """Rows in groups whose members share a third or more of what a prompt has beyond ``common`` tokens."""
    order = sorted(range(len(tokens)), key=lambda row: tokens[row])
    groups = [[order[0]]]
    for row in order[1:]:
        pair = [tokens[groups[-1][0]], tokens[row]]
        if 3 * (shared_length(pair) - common) >= min(map(len, pair)) - common:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
