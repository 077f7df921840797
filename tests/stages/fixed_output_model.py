"""A small model that says one thing, whatever it is asked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from r2v_core.config.schema import SLMConfig


def model_that_says(text: str, tiny: SLMConfig, path: Path) -> Path:
    """The small model with weights that let it say a text most of the time; no token of it may come twice."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.model)
    config = AutoConfig.from_pretrained(tiny.model, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    said = tokenizer("\n" + text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    assert len(set(said)) == len(said), tokenizer.convert_ids_to_tokens(said)
    with torch.no_grad():
        for layer in model.model.layers:  # what is left is nearly a table from each token to the next
            layer.self_attn.o_proj.weight.mul_(0.01)  # what came before matters in the last digits only
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for before, after in pairwise(said):
            model.lm_head.weight[after] = 0.2 * model.model.norm(model.model.embed_tokens.weight[before])
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
