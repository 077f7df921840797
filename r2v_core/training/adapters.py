"""LoRA adapters: their config, and their weights on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from r2v_core.config.schema import LoRAConfig, SLMConfig
from r2v_core.digest import digest_file, digest_of
from r2v_core.errors import R2VError
from r2v_core.runs.processes import is_main

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "adapter"


def lora_config(lora: LoRAConfig, **extra: Any) -> LoraConfig:
    """The peft config of the ``training.lora`` section."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        **extra,
    )


def check_targets(model: torch.nn.Module, lora: LoRAConfig) -> None:
    """Refuse target modules that the model does not have.

    Raises:
        R2VError: naming the module, with the names of the model's linear layers.
    """
    names = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    for target in lora.target_modules:
        if target not in names:
            raise R2VError(
                f"training.lora.target_modules: this model has no linear layer '{target}'; choose from "
                f"{', '.join(sorted(names - {'lm_head', 'heads'}))}"
            )


def load_weights(model: Any, folder: Path) -> None:
    """Put the weights of a saved adapter into the adapter 'default' of a peft model.

    Raises:
        R2VError: if they don't fit the model.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    try:
        outcome = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    except RuntimeError as error:
        raise R2VError(
            f"{folder}: does not fit this model ({str(error).splitlines()[0]}); set slm.model to the one it was "
            "trained on"
        ) from error
    if outcome.unexpected_keys:
        raise R2VError(
            f"{folder}: does not fit this model, which has no '{outcome.unexpected_keys[0]}'; set slm.model to the one "
            "it was trained on"
        )


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Write the adapter 'default' of a peft model: safetensors and a config with no path of this machine in it."""
    if not is_main():
        return
    staging = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(str(staging), selected_adapters=["default"], save_embedding_layers=False)
    (staging / "README.md").unlink(missing_ok=True)
    path = staging / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)


def save_untrained(slm: SLMConfig, lora: LoRAConfig, cache: Path, folder: Path, seed: int) -> None:
    """Write an adapter that changes nothing: A drawn by ``seed``, B zero, as every training begins (Hu et al. 2021).

    Raises:
        R2VError: if the model can't be loaded or does not fit the LoRA config.
    """
    from peft import get_peft_model
    from transformers import set_seed

    from r2v_core.models.hub import load_lm

    set_seed(seed)
    model = load_lm(slm, cache)
    check_targets(model, lora)
    save_adapter(get_peft_model(model, lora_config(lora, task_type="CAUSAL_LM")), folder, slm.model)


def adapter_digest(folder: Path) -> str:
    """Digest of an adapter: its weights and its config, without the base model's path and the library's version."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("base_model_name_or_path", "peft_version", "revision"):
        config.pop(key, None)
    return digest_of({"weights": digest_file(folder / "adapter_model.safetensors"), "config": config})
