"""The verifier: packing, masks, and scores that depend on the prompt and the action alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from r2v_core.config.schema import LoRAConfig, SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.control_tokens import end_of_turn
from r2v_core.models.hub import load_lm, load_tokenizer
from r2v_core.models.verifier import Verifier, VerifierInfo, attention_mask, build, pack, write_info
from r2v_core.training.adapters import lora_config, save_adapter

PROMPTS = ["A short prompt:", "A prompt that is a good deal longer than the other one, so that padding is needed:", "x"]
ACTIONS = [["go east", "take the red key from the chest", ""], ["open door"], ["look", "wait"]]


def _save(folder: Path, slm: SLMConfig, cache: Path, layers: int, heads: list[str]) -> Path:
    torch.manual_seed(1)
    model = get_peft_model(build(slm, cache, layers), lora_config(LoRAConfig(r=4), modules_to_save=["heads"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        if "heads.modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(model, folder / "adapter", slm.model)
    write_info(VerifierInfo(base=slm.model, layers=layers, heads=heads), folder)
    return folder


@pytest.fixture
def verifier(tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path) -> Verifier:
    return Verifier.load(_save(tmp_path, tiny_slm, model_cache, 0, ["step", "outcome"]), tiny_slm, model_cache)


def _from_scratch(verifier: Verifier, prompt: str, action: str) -> tuple[float, float]:
    """Score one action by reading prompt + action as plain text, with the backbone's own causal mask."""
    ids = verifier.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids += verifier.tokenizer(action + end_of_turn(verifier.tokenizer), add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        hidden = verifier.model.backbone(input_ids=torch.tensor([ids])).last_hidden_state[:, -1]
        step, outcome = torch.sigmoid(verifier.model.heads(hidden))[0].tolist()
    return step, outcome


def test_scores_equal_those_of_prompt_and_action_read_alone(verifier: Verifier) -> None:
    for prompt, actions, scores in zip(PROMPTS, ACTIONS, verifier.score(PROMPTS, ACTIONS), strict=True):
        for action, score in zip(actions, scores, strict=True):
            assert score == pytest.approx(_from_scratch(verifier, prompt, action), abs=1e-5)


def test_scores_differ_between_actions_and_between_prompts(verifier: Verifier) -> None:
    scores = verifier.score(["one prompt", "another place"], [["go east", "eat lamp"]] * 2)
    flat = [round(step, 4) for pair in scores for step, _ in pair]
    assert len(set(flat)) == 4


@pytest.mark.parametrize("batch_size", [1, 2, 24])
def test_batch_composition_does_not_matter(verifier: Verifier, batch_size: int) -> None:
    together = verifier.score(PROMPTS, ACTIONS, batch_size=batch_size)
    for prompt, actions, scores in zip(PROMPTS, ACTIONS, together, strict=True):
        for action, score in zip(actions, scores, strict=True):
            assert verifier.score([prompt], [[action]])[0][0] == pytest.approx(score, abs=1e-5)


def test_a_state_without_actions_gets_no_scores(verifier: Verifier) -> None:
    scores = verifier.score(["a", "b"], [[], ["go"]])
    assert scores[0] == [] and len(scores[1]) == 1
    assert verifier.score([], []) == []


def test_an_untrained_head_answers_as_the_other_one(tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path) -> None:
    both = Verifier.load(_save(tmp_path / "a", tiny_slm, model_cache, 0, ["step", "outcome"]), tiny_slm, model_cache)
    only = Verifier.load(_save(tmp_path / "b", tiny_slm, model_cache, 0, ["step"]), tiny_slm, model_cache)
    (step, outcome), (first, second) = both.score(["p"], [["a"]])[0][0], only.score(["p"], [["a"]])[0][0]
    assert step != outcome
    assert first == second == pytest.approx(step)


def test_fewer_layers_are_really_cut(tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path) -> None:
    cut = Verifier.load(_save(tmp_path, tiny_slm, model_cache, 1, ["step", "outcome"]), tiny_slm, model_cache)
    assert len(cut.model.backbone.layers) == 1
    cut.score(PROMPTS, ACTIONS)


def test_too_many_layers_are_refused(tiny_slm: SLMConfig, model_cache: Path) -> None:
    with pytest.raises(R2VError, match=r"training.verifier.layers: 3, but .* has 2 layers"):
        build(tiny_slm, model_cache, 3)


def test_missing_broken_and_foreign_verifiers_are_refused(
    tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path
) -> None:
    with pytest.raises(R2VError, match=r"verifier.json: no trained verifier there"):
        Verifier.load(tmp_path, tiny_slm, model_cache)
    folder = _save(tmp_path / "v", tiny_slm, model_cache, 0, ["step"])
    with pytest.raises(R2VError, match=r"a verifier of .* but slm.model is 'other/model'"):
        Verifier.load(folder, SLMConfig(model="other/model"), model_cache)
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(R2VError, match="not a LoRA adapter that fits"):
        Verifier.load(folder, tiny_slm, model_cache)


def test_packing_continues_positions_from_the_prompt() -> None:
    packed = pack([[1, 2, 3], [4]], [[[5, 6], [7]], [[8]]], pad=0)
    assert packed.input_ids.tolist() == [[1, 2, 3, 5, 6, 7], [4, 8, 0, 0, 0, 0]]
    assert packed.segments.tolist() == [[0, 0, 0, 1, 1, 2], [0, 1, -1, -1, -1, -1]]
    assert packed.positions[0].tolist() == [0, 1, 2, 3, 4, 3]
    assert packed.rows.tolist() == [0, 0, 1] and packed.ends.tolist() == [4, 5, 1]


def test_actions_see_the_prompt_and_themselves_only() -> None:
    allowed = attention_mask(torch.tensor([[0, 0, 1, 1, 2, -1]]))[0, 0]
    assert allowed[4].tolist() == [True, True, False, False, True, False]
    assert allowed[3].tolist() == [True, True, True, True, False, False]
    assert allowed[0].tolist() == [True, False, False, False, False, False]
    assert allowed[5].tolist() == [True, True, False, False, False, True]


def test_flash_attention_is_never_asked_for(tiny_slm: SLMConfig, model_cache: Path) -> None:
    model = build(tiny_slm.model_copy(update={"attention": "eager"}), model_cache, 0)
    assert model.backbone.config._attn_implementation == "sdpa"


def test_tokenizer_and_model_agree(tiny_slm: SLMConfig, model_cache: Path) -> None:
    assert len(load_tokenizer(tiny_slm, model_cache)) == load_lm(tiny_slm, model_cache).config.vocab_size
