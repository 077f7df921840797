"""How likely a model is to write given texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2v_core.models.control_tokens import action_ids


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Log-probability of each (prompt, continuation)'s continuation and the end of turn after it, nats."""
    before = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt, _ in pairs]
    after = [action_ids(tokenizer, text) for _, text in pairs]
    rows = [a + b for a, b in zip(before, after, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [int(tokenizer.pad_token_id)] * (width - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    totals = []
    for row, prompt, text in zip(range(len(rows)), before, after, strict=True):
        logp = torch.log_softmax(logits[row, len(prompt) - 1 : len(prompt) + len(text) - 1].float(), dim=-1)
        totals.append(float(logp.gather(-1, torch.tensor(text, device=logp.device)[:, None]).double().sum()))
    return totals
