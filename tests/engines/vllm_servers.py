"""Environments and models for the tests of the engine ``vllm``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.vllm import WHERE
from r2v_core.engines.vllm.opening import BASE
from r2v_core.engines.vllm.server import Server, server_environment, start
from r2v_core.models.hub import load_lm, load_tokenizer

ROOT = Path(__file__).parents[2]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GB; a server for itself takes 2
STUB = Path(__file__).with_name("stub_server.py")


def real_environment() -> Path:
    """The environment that ``make vllm`` made."""
    folder = Path(os.environ.get(WHERE) or ROOT / ".venv-vllm")
    assert (folder / "bin" / "python").exists(), f"{folder} is missing: make vllm"
    return folder


def stub_environment(folder: Path, behaviour: str) -> Path:
    """An environment whose Python runs :mod:`stub_server` instead of what it is told to."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" {behaviour} "$@"\n')
    python.chmod(0o755)
    return folder


def small_llama(real_slm: SLMConfig, cache: Path, path: Path) -> SLMConfig:
    """A random two-layer Llama of sizes that vLLM's kernels take, with opinions: its logits are far apart."""
    tokenizer = load_tokenizer(real_slm, cache)
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=2, tie_word_embeddings=False, **sizes, **ends)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6.0 if weight.dim() > 1 else 1.0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return SLMConfig(model=str(path), dtype="float32", max_action_tokens=8)


def random_adapter(slm: SLMConfig, cache: Path, path: Path, rank: int = 4, **options: object) -> Path:
    """A LoRA adapter that changes what the model says."""
    torch.manual_seed(1)
    lora = LoraConfig(
        r=rank, lora_alpha=4 * rank, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options
    )
    get_peft_model(load_lm(slm, cache), lora).save_pretrained(path)
    return path


def serve(model: str, log: Path) -> Server:
    """A server as its user might start it, for all who know the address."""
    python = real_environment() / "bin" / "python"
    arguments = (
        *("-m", "vllm.entrypoints.openai.api_server", f"--model={model}", f"--served-model-name={BASE}"),
        *("--host=127.0.0.1", "--dtype=float32", "--enforce-eager", "--no-enable-chunked-prefill"),
        *("--enable-lora", "--max-lora-rank=16", "--max-model-len=1024"),
    )
    environment = server_environment(os.environ) | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    return start(lambda port: [str(python), *arguments, f"--port={port}"], environment, log, 500)
