"""What is sampled for a prompt does not depend on what is sampled beside it, whatever the model's layers are like."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Lfm2Config, MistralConfig, Qwen2Config, Qwen3NextConfig

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.transformers.rows import Padded
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models.hub import load_tokenizer
from r2v_core.models.prefix_tree import bears_a_tree

INSTRUCTIONS = "You play a game. Answer with one command and nothing else, such as: take the key from the table. " * 2
PROMPTS = [
    INSTRUCTIONS + rest for rest in ("Go.", "Open the door, then go east and north and eat. " * 3, "Eat it all.")
]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
MODELS = {
    "sliding": lambda n: MistralConfig(vocab_size=n, sliding_window=8, **SIZES),
    "alternating": lambda n: Gemma3TextConfig(vocab_size=n, **SIZES, **ALTERNATING),
    "late sliding": lambda n: Qwen2Config(
        vocab_size=n, use_sliding_window=True, max_window_layers=1, sliding_window=8, **SIZES
    ),
    "convolutions": lambda n: Lfm2Config(vocab_size=n, layer_types=["conv", "full_attention"], **SIZES),
    "linear": lambda n: Qwen3NextConfig(
        vocab_size=n,
        layer_types=["linear_attention", "full_attention"],
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        **SIZES,
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def sampler(request, real_slm, model_cache) -> Sampler:
    tokenizer = load_tokenizer(real_slm, model_cache)
    torch.manual_seed(0)
    config = MODELS[request.param](len(tokenizer))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    for layer in model.get_decoder().layers:  # as drawn, layers hardly change what they are given
        for weight in layer.parameters():
            weight.data.mul_(3.0 if weight.dim() > 1 else 1.0)
    assert not bears_a_tree(model)
    return Sampler(model, tokenizer, SLMConfig(model="tiny", dtype="float32"))


def test_replies_do_not_depend_on_batch_mates(sampler):
    """In float64, where no draw falls between one rounding and another, whatever the processor."""
    exact = Sampler(deepcopy(sampler.model).double(), sampler.tokenizer, sampler.slm)
    exact.model.set_experts_implementation("eager")  # the others know no float64

    def sample(prompts, seeds):
        return exact.sample(prompts, seeds, k=3, temperature=1.0, batch_size=8)

    alone = [sample([prompt], [seed])[0] for seed, prompt in enumerate(PROMPTS)]
    together = sample(PROMPTS, list(range(len(PROMPTS))))
    for some, others in zip(alone, together, strict=True):
        assert [c.text for c in some] == [c.text for c in others]
        assert [c.logprob for c in some] == pytest.approx([c.logprob for c in others], abs=1e-6)


@torch.inference_mode()
def test_logits_are_those_of_the_prompt_alone(sampler):
    ids = [sampler.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    for chosen in sampler._batches(list(map(len, ids)), 8):
        logits, of = Padded(sampler.model, sampler.tokenizer.pad_token_id).first([ids[i] for i in chosen], 2)
        assert of.tolist() == [row for row in range(len(chosen)) for _ in range(2)]
        for row, i in zip(logits, chosen, strict=True):
            alone = sampler.model(torch.tensor([ids[i]]), use_cache=False).logits[0, -1]
            assert (row - alone).abs().max() <= 1e-4
            assert (alone - alone.mean()).abs().max() > 1e-2  # and there is something to tell apart
