"""Did preference optimisation learn anything that holds elsewhere? Measured on pairs of templates it never saw."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from r2v_core.digest import rng
from r2v_core.evaluation.statistics import sign_flip
from r2v_core.training.consistency import ContextPair, consistency_loss, tokenize_context_pairs
from r2v_core.training.examples import Renderer
from r2v_core.training.preferences import MIN_PAIRS, Pair

MOST = 400
"""Held-out pairs of each kind that are measured at most."""
ROWS = 8
"""Prompts with an action that are read together."""
REFERENCE, POLICY = "ref", "default"
"""Adapters of the trained model: what training started from, and what it made of it."""


def held_out_templates(pairs: Sequence[Pair], share: float, seed: int) -> frozenset[str]:
    """Templates whose pairs are kept from training: a share of those that have any, at least one.

    None where the rest would hold fewer than :data:`~r2v_core.training.preferences.MIN_PAIRS` pairs or no template.
    """
    templates = sorted({pair.template_id for pair in pairs})
    n = min(math.ceil(share * len(templates)), len(templates) - 1)
    held = frozenset(templates[i] for i in rng(seed, "preference-validation").permutation(len(templates))[:n])
    return held if sum(pair.template_id not in held for pair in pairs) >= MIN_PAIRS else frozenset()


def split(pairs: Sequence[Any], held: Collection[str]) -> tuple[list[Any], list[Any]]:
    """Preference or context pairs to train on, and those of held-out templates."""
    return [p for p in pairs if p.template_id not in held], [p for p in pairs if p.template_id in held]


@torch.inference_mode()
def action_logprobs(
    model: nn.Module, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int, device: torch.device
) -> list[float]:
    """Log π(action | prompt) of each (prompt ids, action ids), nats: the sum over the action's tokens."""
    found: list[float] = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        width, keep = max(len(p) + len(a) for p, a in part), max(len(a) for _, a in part)
        ids = torch.tensor([[pad] * (width - len(p) - len(a)) + [*p, *a] for p, a in part], device=device)
        mask = torch.tensor([[0] * (width - len(p) - len(a)) + [1] * (len(p) + len(a)) for p, a in part], device=device)
        positions = mask.cumsum(-1).sub(1).clamp(min=0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep + 1
        ).logits[:, :-1]
        said = logits.float().log_softmax(-1).gather(-1, ids[:, -keep:, None])[..., 0]
        own = (
            torch.arange(keep, device=device) >= keep - torch.tensor([len(a) for _, a in part], device=device)[:, None]
        )
        found += (said * own).sum(-1).tolist()
    return found


@contextmanager
def _as(model: Any, adapter: str) -> Iterator[None]:
    """The model with an adapter, in evaluation mode; afterwards as it was trained."""
    training = model.training
    model.set_adapter(adapter)
    model.eval()
    try:
        yield
    finally:
        model.set_adapter(POLICY)
        model.train(training)


def check(
    model: Any, pairs: Sequence[Pair], context_pairs: Sequence[ContextPair], renderer: Renderer, beta: float, seed: int
) -> dict[str, float]:
    """Preferences and consistency on held-out pairs, before training (the reference) and after it.

    Args:
        model: a peft model with the adapters 'default' and 'ref'.
        pairs: held out; at most :data:`MOST` of them are drawn.
        context_pairs: held out; likewise.
        renderer: of prompts and actions.
        beta: DPO's temperature.
        seed: of the draws.

    Returns:
        ``held_out_pairs``, ``held_out_templates``; ``held_out_ranking_before`` and ``_after``: share of pairs whose
        better action is the more probable one; ``held_out_accuracy``: share with a positive reward margin
        β (Δ log π − Δ log π_ref), ties half, and ``held_out_margin``, its mean: before training all are ties, accuracy
        ½ and margin 0; ``held_out_p``: of accuracy ½, by flipping whole templates. ``held_out_context_pairs``,
        ``held_out_divergence_before`` and ``_after``, nats. What there are no pairs for is left out.
    """
    pad, device = int(renderer.tokenizer.pad_token_id), next(model.parameters()).device
    pairs, context_pairs = _drawn(pairs, seed, "pairs"), _drawn(context_pairs, seed, "context pairs")
    rows = [(renderer.encode(p.prompt), renderer.encode_action(a)) for p in pairs for a in (p.chosen, p.rejected)]
    tokens = tokenize_context_pairs(context_pairs, renderer)
    gaps: dict[str, np.ndarray] = {}
    apart: dict[str, float] = {}
    for adapter in (REFERENCE, POLICY):
        with _as(model, adapter):
            said = np.array(action_logprobs(model, rows, pad, device)).reshape(-1, 2)
            gaps[adapter] = said[:, 0] - said[:, 1]
            with torch.inference_mode():
                each = [consistency_loss(model, [one], pad, device).item() for one in tokens]
            apart[adapter] = float(np.mean(each)) if each else math.nan
    found: dict[str, float] = {}
    if pairs:
        margin = beta * (gaps[POLICY] - gaps[REFERENCE])
        right = np.sign(margin)
        templates = np.array([pair.template_id for pair in pairs])
        sums = [right[templates == name].sum() for name in np.unique(templates)]
        found = {
            "held_out_pairs": len(pairs),
            "held_out_templates": len(sums),
            "held_out_ranking_before": float(np.mean(gaps[REFERENCE] > 0)),
            "held_out_ranking_after": float(np.mean(gaps[POLICY] > 0)),
            "held_out_accuracy": float((1 + right.mean()) / 2),
            "held_out_margin": float(margin.mean()),
            "held_out_p": sign_flip(sums, rng(seed, "held-out preferences")),
        }
    if context_pairs:
        found["held_out_context_pairs"] = len(context_pairs)
        found["held_out_divergence_before"], found["held_out_divergence_after"] = apart[REFERENCE], apart[POLICY]
    return found


def _drawn(pairs: Sequence[Any], seed: int, what: str) -> list[Any]:
    chosen = rng(seed, "preference check", what).permutation(len(pairs))[:MOST]
    return [pairs[i] for i in sorted(chosen)]
