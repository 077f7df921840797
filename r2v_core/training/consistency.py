"""The consistency term: one state under two perturbations should give the same distribution over actions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from r2v_core.training.examples import Renderer, executed_before
from r2v_core.trajectory import Episode, teacher_action


@dataclass(frozen=True)
class ContextPair:
    """Two prompts of one underlying state, and the expert's action there."""

    first: str
    second: str
    action: str
    template_id: str = ""
    """Of the task that the state is from."""


@dataclass(frozen=True)
class ContextPairTokens:
    """A :class:`ContextPair` as token ids; the action includes its end-of-turn token."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    action: tuple[int, ...]


def make_context_pairs(perturbed: Sequence[Episode], renderer: Renderer) -> list[ContextPair]:
    """All pairs of different prompts that show the same state: two seeds z, or the clean observation and one z.

    States are the same if they come from copies of one source episode after the same number of carried-out actions.
    The clean variant is used only where no two perturbed prompts differ.
    """
    variants: dict[tuple[str, str, int, str], dict[str, str]] = defaultdict(dict)
    clean: dict[tuple[str, str, int, str], str] = {}
    templates: dict[tuple[str, str, int, str], str] = {}
    for episode in perturbed:
        run = str(episode.metadata.get("source_run_id", ""))  # in a merge, episodes of two runs may share an id
        source = str(episode.metadata.get("source_episode_id", episode.episode_id))
        for index, (step, done) in enumerate(zip(episode.steps, executed_before(episode), strict=True)):
            action = teacher_action(step)
            if action is None:
                continue
            key = (run, source, done, action)
            templates[key] = episode.template_id
            variants[key].setdefault(f"{episode.perturbation_seed}", renderer.prompt(episode, index))
            if key not in clean and step.clean is not None:
                history = [s for s in episode.steps[:index] if s.executed]
                clean[key] = renderer.render(episode.goal, history, step.model_copy(update={"observation": step.clean}))
    pairs: list[ContextPair] = []
    for key, prompts in sorted(variants.items()):
        unlike = [(a, b) for a, b in combinations(prompts.values(), 2) if a != b]
        if not unlike and key in clean:
            unlike = [(clean[key], prompt) for prompt in list(prompts.values())[:1] if prompt != clean[key]]
        pairs += [ContextPair(a, b, key[3], templates[key]) for a, b in unlike]
    return pairs


def tokenize_context_pairs(pairs: Sequence[ContextPair], renderer: Renderer) -> list[ContextPairTokens]:
    """Token ids of each pair."""
    return [
        ContextPairTokens(
            tuple(renderer.encode(pair.first)),
            tuple(renderer.encode(pair.second)),
            tuple(renderer.encode_action(pair.action)),
        )
        for pair in pairs
    ]


def context_pair_batch(pairs: Sequence[ContextPairTokens], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """2B rows ``[padding | prompt | action | padding]``: B first prompts, then B second ones; actions are aligned.

    Returns:
        ``input_ids``, ``attention_mask``, ``position_ids`` ``[2B, L]``, and ``action_mask`` ``[B, T]`` of longest T.
    """
    longest = max(len(pair.action) for pair in pairs)
    prompts = [pair.first for pair in pairs] + [pair.second for pair in pairs]
    actions = [pair.action for pair in pairs] * 2
    width = max(map(len, prompts))
    ids, mask = [], []
    for prompt, action in zip(prompts, actions, strict=True):
        left, right = width - len(prompt), longest - len(action)
        ids.append([pad] * left + list(prompt) + list(action) + [pad] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(action)) + [0] * right)
    attention = torch.tensor(mask, device=device)
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": attention,
        "position_ids": attention.cumsum(-1).sub(1).clamp(min=0),
        "action_mask": attention[: len(pairs), -longest:].bool(),
    }


def jensen_shannon(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence in nats, in [0, ln 2], along the last dimension of two logit tensors (Lin 1991).

    JSD(P, Q) = ½ KL(P ‖ M) + ½ KL(Q ‖ M) with M = ½ (P + Q).
    """
    p, q = torch.log_softmax(first.float(), -1), torch.log_softmax(second.float(), -1)
    m = torch.logaddexp(p, q) - math.log(2.0)
    return 0.5 * ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1))


def consistency_loss(
    model: nn.Module, pairs: Sequence[ContextPairTokens], pad: int, device: torch.device
) -> torch.Tensor:
    """Mean divergence over the action positions (end of turn included) with the expert's action given to both.

    Logits are computed at those positions only.
    """
    batch = context_pair_batch(pairs, pad, device)
    mask = batch.pop("action_mask")
    keep = mask.shape[1] + 1
    logits = model(**batch, use_cache=False, logits_to_keep=keep).logits[:, :-1]
    first, second = logits.chunk(2)
    return jensen_shannon(first[mask], second[mask]).mean()


def choose_context_pairs(pairs: Sequence[ContextPairTokens], n: int, draw: torch.Generator) -> list[ContextPairTokens]:
    """``n`` of the pairs, without repetition as far as there are enough."""
    picked = torch.randperm(len(pairs), generator=draw)[:n].tolist()
    return [pairs[i] for i in picked]
