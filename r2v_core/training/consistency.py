"""The consistency term: one state under two perturbations should give the same distribution over actions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from r2v_core.training.examples import Renderer, executed_before, teacher_action
from r2v_core.trajectory import Episode


@dataclass(frozen=True)
class Twin:
    """Two prompts of one underlying state, and the expert's action there."""

    first: str
    second: str
    action: str


@dataclass(frozen=True)
class TwinTokens:
    """A :class:`Twin` as token ids; the action includes its end-of-turn token."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    action: tuple[int, ...]


def make_twins(perturbed: Sequence[Episode], renderer: Renderer) -> list[Twin]:
    """All pairs of different prompts that show the same state: two seeds z, or the clean observation and one z.

    States are the same if they come from copies of one source episode after the same number of carried-out actions.
    The clean variant is used only where no two perturbed prompts differ.
    """
    variants: dict[tuple[str, str, int, str], dict[str, str]] = defaultdict(dict)
    clean: dict[tuple[str, str, int, str], str] = {}
    for episode in perturbed:
        run = str(episode.metadata.get("source_run_id", ""))  # in a merge, episodes of two runs may share an id
        source = str(episode.metadata.get("source_episode_id", episode.episode_id))
        for index, (step, done) in enumerate(zip(episode.steps, executed_before(episode), strict=True)):
            action = teacher_action(step)
            if action is None:
                continue
            key = (run, source, done, action)
            variants[key].setdefault(f"{episode.perturbation_seed}", renderer.prompt(episode, index))
            if key not in clean and step.clean is not None:
                history = [s for s in episode.steps[:index] if s.executed]
                clean[key] = renderer.render(episode.goal, history, step.model_copy(update={"observation": step.clean}))
    twins = []
    for key, found in sorted(variants.items()):
        pairs = [(a, b) for a, b in combinations(found.values(), 2) if a != b]
        if not pairs and key in clean:
            pairs = [(clean[key], prompt) for prompt in list(found.values())[:1] if prompt != clean[key]]
        twins += [Twin(a, b, key[3]) for a, b in pairs]
    return twins


def tokenize_twins(twins: Sequence[Twin], renderer: Renderer) -> list[TwinTokens]:
    """Token ids of each pair."""
    return [
        TwinTokens(
            tuple(renderer.encode(twin.first)),
            tuple(renderer.encode(twin.second)),
            tuple(renderer.encode_action(twin.action)),
        )
        for twin in twins
    ]


def twin_batch(twins: Sequence[TwinTokens], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """2B rows ``[padding | prompt | action | padding]``: B first prompts, then B second ones; actions are aligned.

    Returns:
        ``input_ids``, ``attention_mask``, ``position_ids`` ``[2B, L]``, and ``action_mask`` ``[B, T]`` of longest T.
    """
    longest = max(len(twin.action) for twin in twins)
    prompts = [twin.first for twin in twins] + [twin.second for twin in twins]
    actions = [twin.action for twin in twins] * 2
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
        "action_mask": attention[: len(twins), -longest:].bool(),
    }


def jensen_shannon(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence in nats, in [0, ln 2], along the last dimension of two logit tensors (Lin 1991).

    JSD(P, Q) = ½ KL(P ‖ M) + ½ KL(Q ‖ M) with M = ½ (P + Q).
    """
    p, q = torch.log_softmax(first.float(), -1), torch.log_softmax(second.float(), -1)
    m = torch.logaddexp(p, q) - math.log(2.0)
    return 0.5 * ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1))


def consistency_loss(model: nn.Module, twins: Sequence[TwinTokens], pad: int, device: torch.device) -> torch.Tensor:
    """Mean divergence over the action positions (end of turn included) with the expert's action given to both.

    Logits are computed at those positions only.
    """
    batch = twin_batch(twins, pad, device)
    mask = batch.pop("action_mask")
    keep = mask.shape[1] + 1
    logits = model(**batch, use_cache=False, logits_to_keep=keep).logits[:, :-1]
    first, second = logits.chunk(2)
    return jensen_shannon(first[mask], second[mask]).mean()


def choose_twins(twins: Sequence[TwinTokens], n: int, draw: torch.Generator) -> list[TwinTokens]:
    """``n`` of the pairs, without repetition as far as there are enough."""
    picked = torch.randperm(len(twins), generator=draw)[:n].tolist()
    return [twins[i] for i in picked]
