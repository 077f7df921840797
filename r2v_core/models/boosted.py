"""Boosted regression trees as a module: arrays that safetensors holds, one logit from F features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LEAF = -1
"""In the place of a feature: the node is a leaf."""


class BoostedTrees(nn.Module):
    """Σ of binary trees: at a node with feature f, left where x_f ≤ its threshold; a leaf holds what it adds."""

    feature: Tensor
    threshold: Tensor
    below: Tensor
    value: Tensor
    start: Tensor

    def __init__(self, trees: int, nodes: int) -> None:
        super().__init__()
        self.register_buffer("feature", torch.full((trees, nodes), LEAF, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros((trees, nodes), dtype=torch.float64))
        self.register_buffer("below", torch.zeros((2, trees, nodes), dtype=torch.int64))
        self.register_buffer("value", torch.zeros((trees, nodes), dtype=torch.float64))
        self.register_buffer("start", torch.zeros((), dtype=torch.float64))

    @property
    def size(self) -> list[int]:
        """Trees, and nodes of the largest."""
        return list(self.feature.shape)

    def put(
        self,
        tree: int,
        feature: NDArray[np.int64],
        threshold: NDArray[np.float64],
        children: Sequence[NDArray[np.int64]],
        value: NDArray[np.float64],
    ) -> None:
        """Set one tree; all arrays are by node, shape (nodes,), the root first, leaves with :data:`LEAF`."""
        n = len(feature)
        self.feature[tree, :n] = torch.from_numpy(feature)
        self.threshold[tree, :n] = torch.from_numpy(threshold)
        for side, nodes in enumerate(children):
            self.below[side, tree, :n] = torch.from_numpy(nodes)
        self.value[tree, :n] = torch.from_numpy(value)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n,), float64, from raw features of shape (n, F)."""
        trees = torch.arange(len(self.feature))
        at = torch.zeros((len(x), len(trees)), dtype=torch.int64)
        while True:
            feature = self.feature[trees, at]
            inner = feature != LEAF
            if not inner.any():
                break
            right = x.gather(1, feature.clamp(min=0)).double() > self.threshold[trees, at]
            at = torch.where(inner, self.below[right.long(), trees, at], at)
        return self.start + self.value[trees, at].sum(dim=1)
