"""Batched sampling of K replies per prompt.

Randomness is one uniform number per (prompt, sample, token), drawn from the prompt's own seed: what is sampled for a
prompt depends on the rest of its batch only through the last bits of the model's arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from r2v_core.engines.transformers.rows import Rows
from r2v_core.models.entropy import clipped_entropies
from r2v_core.trajectory import Candidate


@dataclass
class Samples:
    """The B × K sequences under way; row b·K + j is sample j of prompt b."""

    tokens: torch.Tensor  # [B·K, T] long
    lengths: torch.Tensor  # [B·K] tokens generated, end-of-turn included
    logprob: torch.Tensor  # [B·K] nats, at temperature 1
    entropy: torch.Tensor  # [B·K] sum over tokens, nats


@torch.inference_mode()
def sample_replies(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    k: int,
    temperature: float,
    max_new_tokens: int,
    ends: Sequence[int],
) -> list[list[Candidate]]:
    """Sample ``k`` replies to each of B prompts.

    Args:
        rows: the model.
        prompts: token ids of B rendered prompts.
        seeds: B seeds, one a prompt.
        temperature: divides the logits before sampling, 0: the likeliest token each time; log-probabilities and
            entropies are reported at 1.
        max_new_tokens: T, tokens generated at most for one reply.
        ends: ids of tokens that end a turn.

    Returns:
        B lists of k candidates, in sampling order.
    """
    uniforms = np.stack([np.random.default_rng(seed).random((k, max_new_tokens)) for seed in seeds])
    uniform = torch.from_numpy(uniforms.reshape(-1, max_new_tokens))
    return _candidates(tokenizer, decode(rows, prompts, k, uniform, temperature, ends), len(prompts), k, ends)


def decode(
    rows: Rows, prompts: Sequence[Sequence[int]], k: int, uniform: torch.Tensor, temperature: float, ends: Sequence[int]
) -> Samples:
    """Extend every row until a token that ends its turn, or T tokens; finished rows leave the batch.

    Args:
        uniform: ``[B·K, T]`` in [0, 1).
    """
    logits, of = rows.first(prompts, k)
    device, (count, limit) = logits.device, uniform.shape
    uniform, last = uniform.to(device), torch.tensor(ends, device=device)
    done = Samples(
        tokens=torch.full((count, limit), ends[0], dtype=torch.long, device=device),
        lengths=torch.zeros(count, dtype=torch.long, device=device),
        logprob=torch.zeros(count, dtype=torch.float64, device=device),
        entropy=torch.zeros(count, dtype=torch.float64, device=device),
    )
    alive = torch.arange(count, device=device)
    for t in range(limit):
        token, logprob, entropy = _draw(logits, of, uniform[alive, t], temperature)
        done.tokens[alive, t] = token
        done.lengths[alive] = t + 1
        done.logprob[alive] += logprob
        done.entropy[alive] += entropy
        keep = (~torch.isin(token, last)).nonzero().squeeze(-1)
        if t + 1 == limit or keep.numel() == 0:
            break
        alive = alive[keep]
        logits, of = rows.next(keep, token[keep])
    return done


def _draw(
    logits: torch.Tensor, of: torch.Tensor, uniform: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample one token a row by inverting the cumulative distribution; log-probability and entropy at temperature 1.

    Args:
        logits: ``[D, V]``, those that differ.
        of: ``[R]`` long, which of them each row goes by.
    """
    logp = torch.log_softmax(logits.float(), dim=-1)
    if temperature == 0:
        token = logp.argmax(-1)[of]
    else:
        cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
        target = uniform.to(cumulative.dtype) * cumulative[of, -1]
        token = torch.searchsorted(cumulative[of], target[:, None], right=True).squeeze(-1)
        token = token.clamp(max=logits.shape[-1] - 1)
    return token, logp[of, token].double(), clipped_entropies(logp)[of].double()


def _candidates(
    tokenizer: PreTrainedTokenizerBase, samples: Samples, prompts: int, k: int, ends: Sequence[int]
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
