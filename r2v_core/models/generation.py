"""Batched sampling of K actions per prompt, each prompt encoded once.

A prompt's keys and values are computed once and shared by its K samples (the cache is repeated, not recomputed).
Randomness is one uniform number per (prompt, sample, token), drawn from the prompt's own seed: what is sampled for a
prompt depends on the rest of its batch only through the last bits of the model's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2v_core.benchmarks.actions import one_line
from r2v_core.models.encoding import Encoded, encode
from r2v_core.trajectory import Candidate


@dataclass
class _Samples:
    """State of the B × K sequences under way; row b·K + j is sample j of prompt b."""

    tokens: torch.Tensor  # [B·K, T] long
    lengths: torch.Tensor  # [B·K] tokens generated, end-of-turn included
    logprob: torch.Tensor  # [B·K] nats, at temperature 1
    entropy: torch.Tensor  # [B·K] sum over tokens, nats


@torch.inference_mode()
def sample_actions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    k: int,
    temperature: float,
    max_new_tokens: int,
    read: Callable[[str], str] = one_line,
) -> list[list[Candidate]]:
    """Sample ``k`` actions for each of B prompts.

    Args:
        model: causal LM in eval mode.
        prompts: B rendered prompts.
        seeds: B seeds, one a prompt.
        temperature: divides the logits before sampling; log-probabilities and entropies are reported at 1.
        max_new_tokens: T, tokens generated at most for one action.
        read: makes an action of what the model wrote (:mod:`r2v_core.benchmarks.actions`).

    Returns:
        B lists of k candidates, in sampling order.
    """
    encoded = encode(model, tokenizer, prompts).repeat(k)
    uniforms = np.stack([np.random.default_rng(seed).random((k, max_new_tokens)) for seed in seeds])
    uniform = torch.from_numpy(uniforms.reshape(-1, max_new_tokens)).to(model.device)
    samples = _decode(model, encoded, uniform, temperature, eos=int(tokenizer.eos_token_id))
    return _candidates(tokenizer, samples, len(prompts), k, read)


def _decode(model: PreTrainedModel, encoded: Encoded, uniform: torch.Tensor, temperature: float, eos: int) -> _Samples:
    """Extend every row until its end-of-turn token or T tokens; finished rows leave the batch."""
    cache, mask, position, logits = encoded.cache, encoded.mask, encoded.position, encoded.last
    rows, limit = uniform.shape
    done = _Samples(
        tokens=torch.full((rows, limit), eos, dtype=torch.long, device=logits.device),
        lengths=torch.zeros(rows, dtype=torch.long, device=logits.device),
        logprob=torch.zeros(rows, dtype=torch.float64, device=logits.device),
        entropy=torch.zeros(rows, dtype=torch.float64, device=logits.device),
    )
    alive = torch.arange(rows, device=logits.device)
    for t in range(limit):
        token, logprob, entropy = _draw(logits, uniform[alive, t], temperature)
        done.tokens[alive, t] = token
        done.lengths[alive] = t + 1
        done.logprob[alive] += logprob
        done.entropy[alive] += entropy
        keep = (token != eos).nonzero().squeeze(-1)
        if t + 1 == limit or keep.numel() == 0:
            break
        if keep.numel() < alive.numel():
            cache.batch_select_indices(keep)
            alive, mask, position, token = alive[keep], mask[keep], position[keep], token[keep]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=-1)
        logits = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        position = position + 1
    return done


def _draw(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample one token a row by inverting the cumulative distribution; log-probability and entropy at temperature 1."""
    logp = torch.log_softmax(logits.float(), dim=-1)
    entropy = -(logp.exp() * logp).sum(-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    target = uniform.to(cumulative.dtype) * cumulative[:, -1]
    token = torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(-1, token[:, None]).squeeze(-1).double(), entropy.double()


def _candidates(
    tokenizer: PreTrainedTokenizerBase, samples: _Samples, prompts: int, k: int, read: Callable[[str], str]
) -> list[list[Candidate]]:
    lengths = samples.lengths.tolist()
    texts = [
        read(tokenizer.decode(row[:n], skip_special_tokens=True))
        for row, n in zip(samples.tokens.tolist(), lengths, strict=True)
    ]
    flat = [
        Candidate(text=text, logprob=logprob, n_tokens=n, entropy=entropy / n)
        for text, logprob, n, entropy in zip(
            texts, samples.logprob.tolist(), lengths, samples.entropy.tolist(), strict=True
        )
    ]
    return [flat[i * k : (i + 1) * k] for i in range(prompts)]
