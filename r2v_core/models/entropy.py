"""How uncertain a next-token distribution is, from its likeliest tokens alone: one definition for all engines.

The entropy is the mean surprisal −log p of a token. Servers tell the likeliest tokens only, so a surprisal counts up to
that of the :data:`TOP`-th likeliest token at most:

    H = E[min(−log p, −log p₍₂₀₎)] = −Σ_{i ≤ 20} pᵢ log pᵢ − (1 − Σ_{i ≤ 20} pᵢ) log p₍₂₀₎

It never exceeds the entropy of the whole distribution, equals it where the other tokens are as likely as the last that
counts (a uniform distribution), and misses nothing where they hold no mass. Unlike a form with the others as one
bucket, it has no ceiling at log 21 = 3.04 nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TOP = 20
"""Tokens that count one by one: what OpenAI-compatible servers tell at most."""


def clipped_entropy(logprobs: Iterable[float]) -> float:
    """Entropy, nats, from the log-probabilities of the :data:`TOP` likeliest tokens or more, or of all there are."""
    top = sorted(logprobs, reverse=True)[:TOP]
    told = [value for value in top if value > -math.inf]
    rest = max(1.0 - sum(map(math.exp, told)), 0.0) if len(told) >= TOP else 0.0
    return abs(sum(-math.exp(value) * value for value in told) - rest * told[-1])


def clipped_entropies(logp: torch.Tensor) -> torch.Tensor:
    """:func:`clipped_entropy` of each row of ``logp``, [B, V] log-probabilities of all tokens; [B], nats."""
    top = logp.topk(min(TOP, logp.shape[-1]), dim=-1).values
    p = top.exp()
    rest = (1.0 - p.sum(-1)).clamp(min=0.0)
    return -(p * top).sum(-1) - rest * top[:, -1]
