"""Batched sampling of K replies per prompt, each prompt encoded once.

A prompt's keys and values are computed once and shared by its K samples (the cache is repeated, not recomputed).
Randomness is one uniform number per (prompt, sample, token), drawn from the prompt's own seed: what is sampled for a
prompt depends on the rest of its batch only through the last bits of the model's arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2v_core.engines.transformers.encoding import Encoded, encode
from r2v_core.models.control_tokens import end_ids
from r2v_core.models.entropy import clipped_entropies
from r2v_core.models.prefixes import take
from r2v_core.trajectory import Candidate


@dataclass
class _Samples:
    """State of the B × K sequences under way; row b·K + j is sample j of prompt b."""

    tokens: torch.Tensor  # [B·K, T] long
    lengths: torch.Tensor  # [B·K] tokens generated, end-of-turn included
    logprob: torch.Tensor  # [B·K] nats, at temperature 1
    entropy: torch.Tensor  # [B·K] sum over tokens, nats


@torch.inference_mode()
def sample_replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    k: int,
    temperature: float,
    max_new_tokens: int,
) -> list[list[Candidate]]:
    """Sample ``k`` replies to each of B prompts.

    Args:
        model: causal LM in eval mode.
        prompts: B rendered prompts.
        seeds: B seeds, one a prompt.
        temperature: divides the logits before sampling, 0: the likeliest token each time; log-probabilities and
            entropies are reported at 1.
        max_new_tokens: T, tokens generated at most for one reply.

    Returns:
        B lists of k candidates, in sampling order.
    """
    encoded = encode(model, tokenizer, prompts).repeat(k, max_new_tokens)
    uniforms = np.stack([np.random.default_rng(seed).random((k, max_new_tokens)) for seed in seeds])
    uniform = torch.from_numpy(uniforms.reshape(-1, max_new_tokens)).to(model.device)
    ends = end_ids(model.generation_config, tokenizer)
    return _candidates(tokenizer, _decode(model, encoded, uniform, temperature, ends), len(prompts), k, ends)


def _decode(
    model: PreTrainedModel, encoded: Encoded, uniform: torch.Tensor, temperature: float, ends: Sequence[int]
) -> _Samples:
    """Extend every row until a token that ends its turn, or T tokens; finished rows leave the batch."""
    cache, mask, position, logits = encoded.cache, encoded.mask, encoded.position, encoded.last
    rows, limit = uniform.shape
    done = _Samples(
        tokens=torch.full((rows, limit), ends[0], dtype=torch.long, device=logits.device),
        lengths=torch.zeros(rows, dtype=torch.long, device=logits.device),
        logprob=torch.zeros(rows, dtype=torch.float64, device=logits.device),
        entropy=torch.zeros(rows, dtype=torch.float64, device=logits.device),
    )
    alive, last = torch.arange(rows, device=logits.device), torch.tensor(ends, device=logits.device)
    for t in range(limit):
        token, logprob, entropy = _draw(logits, uniform[alive, t], temperature)
        done.tokens[alive, t] = token
        done.lengths[alive] = t + 1
        done.logprob[alive] += logprob
        done.entropy[alive] += entropy
        keep = (~torch.isin(token, last)).nonzero().squeeze(-1)
        if t + 1 == limit or keep.numel() == 0:
            break
        if keep.numel() < alive.numel():
            take(cache, keep)
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
    entropy = clipped_entropies(logp)
    if temperature == 0:
        token = logp.argmax(-1)
    else:
        cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
        target = uniform.to(cumulative.dtype) * cumulative[:, -1]
        token = torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(-1, token[:, None]).squeeze(-1).double(), entropy.double()


def _candidates(
    tokenizer: PreTrainedTokenizerBase, samples: _Samples, prompts: int, k: int, ends: Sequence[int]
) -> list[list[Candidate]]:
    lengths = samples.lengths.tolist()
    texts = [
        str(tokenizer.decode(row[: n - (row[n - 1] in ends)], skip_special_tokens=True))
        for row, n in zip(samples.tokens.tolist(), lengths, strict=True)
    ]
    flat = [
        Candidate(text=text, logprob=logprob, n_tokens=n, entropy=entropy / n)
        for text, logprob, n, entropy in zip(
            texts, samples.logprob.tolist(), lengths, samples.entropy.tolist(), strict=True
        )
    ]
    return [flat[i * k : (i + 1) * k] for i in range(prompts)]
