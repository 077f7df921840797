"""A batch of texts as a tree of tokens: whatever some of them begin with is read once.

A node is one token behind all tokens on the way from the root to it; its keys and values have a column of their own. So
equal prompts, states of one game, and replies that were sampled alike so far share all that they have in common, and a
pass over the model has no padding: its tokens are the nodes that were not read before (Zheng et al. 2024, "SGLang:
Efficient execution of structured language model programs", RadixAttention; Cai et al. 2024, "Medusa", tree attention).

A tree is made for one batch and no longer. What a model says of a text depends, in its last bits, on what was read in
the same passes: if a tree outlived its batch, a stage that goes on after a kill would end in other digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, Cache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, get_layer_types_and_kwargs

FULL = "full_attention"
ROOT = -1
ATTENTION = "r2v_prefix_tree"


def layouts(config: PreTrainedConfig) -> set[str]:
    """Kinds of a model's layers, by transformers' names."""
    kinds, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    return set(kinds)


def bears_a_tree(model: Any) -> bool:
    """Whether all layers attend to every token before, through torch's SDPA: windows and states would count columns."""
    return layouts(model.config) <= {FULL} and model.config._attn_implementation == "sdpa"


@dataclass(frozen=True)
class Runs:
    """G runs of a pass's tokens, each token of a run the next one's parent, and what their last tokens stand behind."""

    tokens: torch.Tensor  # [G, Q] long: place in the pass
    filled: torch.Tensor  # [G, Q] bool: not padding
    paths: torch.Tensor  # [G, P] long: nodes from the root to the run's last token
    mask: torch.Tensor  # [G, 1, Q, P] bool: which of them a token attends to


@dataclass(frozen=True)
class Pass:
    """What attention has to know of the tokens that are read together."""

    nodes: torch.Tensor  # [N] long, increasing
    runs: list[Runs]


_PASS: ContextVar[Pass] = ContextVar("pass")


class PrefixTree:
    """The tree of a model whose layers all attend to every token before (:func:`bears_a_tree`).

    Args:
        model: a causal LM or a bare backbone, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        self._unread: list[int] = []
        self._cache = Cache(layer_class_to_replicate=Columns)

    def add(self, ids: Sequence[int], node: int = ROOT) -> int:
        """The node where a text ends that goes on from ``node``."""
        for token in ids:
            child = self._children.get((node, token))
            if child is None:
                child = len(self._tokens)
                self._children[node, token] = child
                self._unread.append(child)
                self._tokens.append(token)
                self._parents.append(node)
                self._depths.append(0 if node == ROOT else self._depths[node] + 1)
            node = child
        return node

    def path(self, node: int) -> list[int]:
        """Nodes from the root to this one."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = self._parents[node]
        return nodes[::-1]

    def outputs(self, nodes: Sequence[int]) -> torch.Tensor:
        """The model's outputs at N nodes: logits ``[N, V]``, or a backbone's hidden states ``[N, H]``.

        Reads all tokens that were added, in one pass; a node that an earlier one read is read again.
        """
        wanted = sorted(set(nodes))
        todo = sorted({*self._unread, *wanted})
        place, device = {node: i for i, node in enumerate(todo)}, self._model.device
        keep = torch.tensor([place[node] for node in wanted], device=device)
        causal = self._model.get_output_embeddings() is not None
        with _attending(self._model, Pass(torch.tensor(todo, device=device), self._runs(todo, place))):
            out = self._model(
                input_ids=torch.tensor([[self._tokens[node] for node in todo]], device=device),
                position_ids=torch.tensor([[self._depths[node] for node in todo]], device=device),
                past_key_values=self._cache,
                use_cache=True,
                **({"logits_to_keep": keep} if causal else {}),
            )
        self._unread.clear()
        found = out.logits[0] if causal else out.last_hidden_state[0, keep]
        row = {node: i for i, node in enumerate(wanted)}
        return found[[row[node] for node in nodes]]

    def _runs(self, todo: Sequence[int], place: dict[int, int]) -> list[Runs]:
        """The tokens of a pass in runs, those of similar length together."""
        runs: list[list[int]] = []
        ended_by: dict[int, list[int]] = {}
        for node in todo:
            run = ended_by.pop(self._parents[node], None)
            if run is None:
                runs.append(run := [])
            run.append(node)
            ended_by[node] = run
        runs.sort(key=len, reverse=True)
        alike: list[list[list[int]]] = []
        for run in runs:
            if not alike or 2 * len(run) <= len(alike[-1][0]):
                alike.append([])
            alike[-1].append(run)
        return [self._laid_out(some, place) for some in alike]

    def _laid_out(self, runs: Sequence[Sequence[int]], place: dict[int, int]) -> Runs:
        device = self._model.device
        paths = [self.path(run[-1]) for run in runs]

        def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
            width = max(map(len, rows))
            return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)

        columns = padded(paths)
        depths = padded([[self._depths[node] for node in run] for run in runs])
        before = torch.arange(columns.shape[1], device=device) <= depths[..., None]
        filled = padded([[1] * len(run) for run in runs]).bool()
        return Runs(padded([[place[node] for node in run] for run in runs]), filled, columns, before[:, None])


class Columns(CacheLayerMixin):
    """A layer's keys and values ``[1, heads, room, width]``, a column for each node of the tree."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begin without a column."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the pass's tokens ``[1, heads, N, width]`` into their columns; all columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        nodes = _PASS.get().nodes
        needed = int(nodes[-1]) + 1
        self.keys, self.values = _with_room(self.keys, needed), _with_room(self.values, needed)
        self.keys[..., nodes, :], self.values[..., nodes, :] = key_states, value_states
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of no use here: attention makes its masks itself."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Likewise: positions are given."""
        return 0

    def get_max_length(self) -> int:
        """There is none."""
        return -1


def _with_room(columns: torch.Tensor, needed: int) -> torch.Tensor:
    """Twice as many columns, or as many as needed, once there are too few."""
    if needed <= columns.shape[-2]:
        return columns
    more = columns.new_empty(*columns.shape[:-2], max(needed, 2 * columns.shape[-2]), columns.shape[-1])
    more[..., : columns.shape[-2], :] = columns
    return more


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What a pass's tokens ``[1, heads, N, width]`` take from nodes on the way to each, ``[1, N, heads, width]``."""
    attended = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    for runs in _PASS.get().runs:
        found, _ = AttentionInterface()["sdpa"](
            module,
            _columns(query, runs.tokens),
            _columns(key, runs.paths),
            _columns(value, runs.paths),
            runs.mask,
            **options,
        )
        attended[0, runs.tokens[runs.filled]] = found[runs.filled]
    return attended, None


def _columns(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Chosen columns ``[G, P]`` of ``[1, heads, N, width]``, as ``[G, heads, P, width]``."""
    picked = states[0].index_select(1, chosen.flatten())
    return picked.unflatten(1, chosen.shape).transpose(0, 1)


AttentionInterface.register(ATTENTION, _attend)


@contextmanager
def _attending(model: Any, told: Pass) -> Iterator[None]:
    """With the tree's attention, which is told of the pass; afterwards with the model's own."""
    own, before = model.config._attn_implementation, _PASS.set(told)
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(own)
        _PASS.reset(before)
