"""Names of models: packaged, local, hub; and what this machine can't do is said before loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from r2v_core.config.schema import LoRAConfig, SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.hub import check_hardware, load_lm, load_tokenizer, merge_adapter, quiet_loading, resolve_model
from r2v_core.training.adapters import lora_config, save_adapter, save_untrained


def test_packaged_model_is_converted_once_and_is_the_real_one(model_cache: Path, real_slm: SLMConfig):
    path = Path(resolve_model(real_slm.model, model_cache))
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert Path(resolve_model(real_slm.model, model_cache)) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == before
    tokenizer = load_tokenizer(real_slm, model_cache)
    model = load_lm(real_slm, model_cache)
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        best = model(ids).logits[0, -1].argmax()
    assert tokenizer.decode([best]).strip() == "Paris"


def test_local_path_and_hub_id(tmp_path: Path, tiny_slm: SLMConfig):
    assert resolve_model(tiny_slm.model, tmp_path) == tiny_slm.model
    assert resolve_model("meta-llama/Llama-3.1-8B-Instruct", tmp_path) == "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2-135m-instuct", "Did you mean 'smollm2-135m-instruct'"),
        ("./nowhere/at/all", "not a packaged model, a folder here"),
        (".", "has no config.json"),
    ],
)
def test_bad_names_say_what_to_do(name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(R2VError, match=r"slm\.model") as caught:
        resolve_model(name, tmp_path)
    assert expected in str(caught.value)


@pytest.mark.parametrize("settings", [{"quantization": "4bit"}, {"attention": "flash_attention_2"}])
def test_absent_hardware_is_named_with_the_alternative(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(R2VError, match=rf"slm\.{next(iter(settings))}: .* needs a CUDA GPU.*set it to"):
        check_hardware(SLMConfig.model_validate(settings))


def test_a_folder_that_is_no_model_is_one_clear_error(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(R2VError, match="could not be loaded"):
        load_tokenizer(SLMConfig(model=str(tmp_path)), tmp_path)


def test_weights_are_merged_in_float32_and_rounded_once(tmp_path: Path, tiny_slm: SLMConfig):
    slm = tiny_slm.model_copy(update={"dtype": "bfloat16"})
    with quiet_loading():
        adapted = get_peft_model(load_lm(slm, tmp_path), lora_config(LoRAConfig(r=4, alpha=12), task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = 0.1 * torch.randn_like(weight)
    save_adapter(adapted, tmp_path / "adapter", slm.model)
    base, merged = load_lm(slm, tmp_path), merge_adapter(load_lm(slm, tmp_path), tmp_path / "adapter")
    changed = 0
    for name, weight in merged.named_parameters():
        exact, lora = base.get_parameter(name).float(), name.replace("weight", "lora_{}.default.weight")
        if "_proj" in name:
            a, b = (adapted.get_parameter(f"base_model.model.{lora.format(part)}") for part in "AB")
            exact = exact + 3.0 * (b @ a)
            changed += 1
        assert torch.equal(weight, exact.to(torch.bfloat16)), name
    assert changed == 2 * 7
    assert not any("lora" in name for name, _ in merged.named_modules())


@torch.inference_mode()
def test_an_adapter_that_changes_nothing_can_be_merged_without_a_trace(tmp_path: Path, tiny_slm: SLMConfig):
    slm = tiny_slm.model_copy(update={"dtype": "bfloat16"})
    with quiet_loading():
        save_untrained(slm, LoRAConfig(r=4), tmp_path, tmp_path / "adapter", 0)
    base, merged = load_lm(slm, tmp_path), merge_adapter(load_lm(slm, tmp_path), tmp_path / "adapter")
    buffers = {name: buffer.dtype for name, buffer in base.named_buffers()}
    assert {name: buffer.dtype for name, buffer in merged.named_buffers()} == buffers, "positions stay in float32"
    ids = torch.arange(200)[None]
    assert torch.equal(base(ids).logits, merged(ids).logits)
