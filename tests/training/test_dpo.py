"""DPO: the reference is the BC adapter, the consistency term is what it says, runs resume."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from r2v_core.config.schema import DPOConfig, SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.hub import load_lm, merge_adapter
from r2v_core.runs.spec import StageContext, UpstreamRun
from r2v_core.stages import train_dpo
from r2v_core.training import callbacks
from r2v_core.training.adapters import adapter_digest
from r2v_core.training.checkpoints import read_log
from r2v_core.training.consistency import (
    choose_context_pairs,
    consistency_loss,
    context_pair_batch,
    jensen_shannon,
    make_context_pairs,
    tokenize_context_pairs,
)
from r2v_core.training.dpo import ConsistentDPOTrainer, make_trainer
from r2v_core.training.examples import Renderer
from r2v_core.training.loop import quiet_libraries
from r2v_core.training.preference_check import check
from r2v_core.training.preferences import CandidateRow, Pair, make_pairs
from r2v_core.training.run import TrainingRun
from r2v_core.training.trl_adapter import score_labels_only
from r2v_core.trajectory import Episode

Context = Callable[..., StageContext]
QUICK = {"max_steps": 5, "batch_size": 2, "save_steps": 2, "learning_rate": 5e-3, "warmup_ratio": 0.0}


def _trainer(ctx: StageContext, rows: list[CandidateRow], renderer: Renderer, **dpo: Any) -> ConsistentDPOTrainer:
    with quiet_libraries():
        return make_trainer(
            make_pairs(rows, "environment", 1),
            make_context_pairs([], renderer),
            renderer,
            ctx.config.slm,
            ctx.inputs["policy"].artifact("adapter"),
            DPOConfig(**{**QUICK, **dpo}),
            ctx.cache,
            TrainingRun(ctx.run_dir, "r", "train_dpo", 1, ctx.report),
        )


def _logprob(model: Any, renderer: Renderer, pair: Pair, action: str) -> float:
    prompt, tokens = renderer.encode(pair.prompt), renderer.encode_action(action)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return float(logits.gather(-1, torch.tensor(tokens)[:, None]).sum())


def test_the_reference_is_the_bc_adapter_and_not_the_base_model(
    dpo_context: Callable[..., StageContext],
    rows: list[CandidateRow],
    renderer: Renderer,
    tiny_slm: SLMConfig,
    model_cache: Path,
) -> None:
    ctx = dpo_context()
    trainer = _trainer(ctx, rows, renderer)
    pair = make_pairs(rows, "environment", 1)[0]
    batch = trainer.data_collator(
        [
            {
                "prompt_ids": renderer.encode(pair.prompt),
                "chosen_ids": renderer.encode_action(pair.chosen),
                "rejected_ids": renderer.encode_action(pair.rejected),
            }
        ]
    )
    with score_labels_only():
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    base = load_lm(tiny_slm, model_cache)
    bare = _logprob(base, renderer, pair, pair.chosen)
    bc = merge_adapter(base, ctx.inputs["policy"].artifact("adapter"))
    assert chosen.item() == pytest.approx(_logprob(bc, renderer, pair, pair.chosen), abs=1e-3)
    assert rejected.item() == pytest.approx(_logprob(bc, renderer, pair, pair.rejected), abs=1e-3)
    assert abs(chosen.item() - bare) > 1.0


def test_only_the_default_adapter_is_trained_and_ref_stays(
    dpo_context: Callable[..., StageContext], rows: list[CandidateRow], renderer: Renderer
) -> None:
    trainer = _trainer(dpo_context(), rows, renderer)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    assert {n.split(".")[-2] for n, p in trainer.model.named_parameters() if p.requires_grad} == {"default"}
    with quiet_libraries(), score_labels_only():
        trainer.train()
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(".default." in name for name in changed)


def test_saving_a_checkpoint_looks_nothing_up(
    dpo_context: Callable[..., StageContext], rows: list[CandidateRow], renderer: Renderer, tmp_path: Path
) -> None:
    ctx = dpo_context()
    config = ctx.inputs["policy"].artifact("adapter") / "adapter_config.json"
    named = json.loads(config.read_text()) | {"base_model_name_or_path": "smollm2-135m-instruct"}  # as the stages write
    config.write_text(json.dumps(named))
    trainer = _trainer(ctx, rows, renderer)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(remote file|config file)")  # peft's word for a failed look-up
        trainer.save_model(str(tmp_path / "saved"))


def test_training_starts_at_ln_2_and_learns_the_preference(dpo_context: Callable[..., StageContext]) -> None:
    ctx = dpo_context(max_steps=10, validation_share=0.0)
    result = train_dpo.run(ctx)
    log = read_log(ctx.run_dir / "training_log.jsonl")
    assert [line["step"] for line in log] == list(range(1, 11))
    assert log[0]["loss_dpo"] == pytest.approx(math.log(2), abs=1e-5)
    assert log[0]["rewards/margins"] == 0.0
    assert 0 <= log[0]["loss_consistency"] <= math.log(2)
    assert log[0]["loss"] == pytest.approx(log[0]["loss_dpo"] + 0.1 * log[0]["loss_consistency"], abs=1e-4)
    assert result.counts["loss_dpo_last"] < math.log(2) - 0.05
    assert result.counts["reward_accuracy_last"] == 1.0
    assert result.counts["pairs"] == 24 and result.counts["consistency_pairs"] > 0
    assert not any(name.startswith("held_out") for name in result.counts)
    for name in result.artifacts.values():
        assert (ctx.run_dir / name).exists()
    assert {path.name for path in (ctx.run_dir / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }, "the reference is not written"


def test_the_asset_page_shows_what_templates_say_that_were_not_trained_on(
    dpo_context: Callable[..., StageContext],
) -> None:
    ctx = dpo_context(max_steps=10)
    counts = train_dpo.run(ctx).counts
    assert counts["pairs"] + counts["held_out_pairs"] == 24 and counts["held_out_templates"] == 1
    assert counts["consistency_pairs"] + counts["held_out_context_pairs"] == 12 * 3
    assert counts["held_out_accuracy"] == 1.0 and counts["held_out_margin"] > 0
    assert counts["held_out_p"] == 1.0, "one template shows nothing"
    assert 0 < counts["held_out_divergence_after"] <= math.log(2)
    preview = (ctx.run_dir / "preview.md").read_text()
    assert f"| reward margin | 0.000 | {counts['held_out_margin']:.3f} |" in preview and "consistency (JSD, " in preview


def test_what_is_held_out_is_measured_with_the_reference_and_with_what_became_of_it(
    dpo_context: Callable[..., StageContext],
    rows: list[CandidateRow],
    renderer: Renderer,
    perturbed_episodes: list[Episode],
) -> None:
    trainer = _trainer(dpo_context(), rows, renderer)
    pairs = make_pairs(rows, "environment", 1, {row.task_id: row.task_id for row in rows})
    contexts = make_context_pairs(perturbed_episodes, renderer)[:3]
    before = check(trainer.model, pairs, contexts, renderer, 0.1, 1)
    assert (before["held_out_accuracy"], before["held_out_margin"], before["held_out_p"]) == (0.5, 0.0, 1.0)
    assert before["held_out_divergence_before"] == before["held_out_divergence_after"] > 0
    with quiet_libraries(), score_labels_only():
        trainer.train()
    after = check(trainer.model, pairs, contexts, renderer, 0.1, 1)
    assert after["held_out_ranking_before"] == before["held_out_ranking_after"]
    assert after["held_out_accuracy"] == 1.0 and after["held_out_p"] < 0.001
    model = trainer.model.eval()
    margins = []
    for pair in pairs[:4]:
        gaps = []
        for adapter in ("default", "ref"):
            model.set_adapter(adapter)
            gaps.append(_logprob(model, renderer, pair, pair.chosen) - _logprob(model, renderer, pair, pair.rejected))
        margins.append(0.1 * (gaps[0] - gaps[1]))
    model.set_adapter("default")
    found = check(model, pairs[:4], [], renderer, 0.1, 1)
    assert found["held_out_margin"] == pytest.approx(sum(margins) / 4, rel=1e-3)
    assert "held_out_divergence_after" not in found
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {"default"}


def test_an_interrupted_run_resumes_to_the_same_adapter(
    dpo_context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dpo_context("whole", max_steps=6)
    digest = train_dpo.run(whole).digest
    ctx = dpo_context("killed", max_steps=6)
    original = callbacks.TrainingLog.on_log

    def stop(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        original(self, args, state, control, logs, **rest)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.TrainingLog, "on_log", stop)
        with pytest.raises(KeyboardInterrupt):
            train_dpo.run(ctx)
    assert train_dpo.run(ctx).digest == digest
    names = ("whole", "killed")
    logs = [read_log(ctx.run_dir.parent / name / "training_log.jsonl") for name in names]
    assert logs[0] == logs[1]
    weights = [load_file(ctx.run_dir.parent / name / "adapter" / "adapter_model.safetensors") for name in names]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_without_consistency_weight_no_term_is_computed(dpo_context: Callable[..., StageContext]) -> None:
    ctx = dpo_context(max_steps=2, consistency_weight=0.0)
    result = train_dpo.run(ctx)
    assert "loss_consistency" not in read_log(ctx.run_dir / "training_log.jsonl")[0]
    assert result.counts["consistency_pairs"] == 0


def test_without_steps_the_bc_adapter_goes_on(dpo_context: Callable[..., StageContext]) -> None:
    ctx = dpo_context(max_steps=0)
    result = train_dpo.run(ctx)
    assert result.digest == adapter_digest(ctx.inputs["policy"].artifact("adapter"))
    assert (ctx.run_dir / result.artifacts["adapter"] / "adapter_model.safetensors").is_file()


def test_the_loss_is_dpo_plus_the_weighted_divergence(dpo_context: Callable[..., StageContext]) -> None:
    ctx = dpo_context(max_steps=1, consistency_weight=1e6)
    train_dpo.run(ctx)
    line = read_log(ctx.run_dir / "training_log.jsonl")[0]
    assert line["loss_consistency"] > 0
    assert line["loss"] == pytest.approx(line["loss_dpo"] + 1e6 * line["loss_consistency"], rel=1e-3)


def test_a_missing_adapter_is_one_clear_error(
    dpo_context: Callable[..., StageContext], make_folder_run: Callable[..., UpstreamRun], tmp_path: Path
) -> None:
    ctx = dpo_context()
    (tmp_path / "empty" / "adapter").mkdir(parents=True)
    ctx.inputs["policy"] = make_folder_run(tmp_path / "empty", "train_bc", {"adapter": "adapter"})
    with pytest.raises(R2VError, match="not a LoRA adapter that fits"):
        train_dpo.run(ctx)


def test_context_pairs_are_one_state_seen_twice(perturbed_episodes: list[Episode], renderer: Renderer) -> None:
    context_pairs = make_context_pairs(perturbed_episodes, renderer)
    assert {pair.template_id for pair in context_pairs} == {f"template{n}" for n in range(5)}
    assert len(context_pairs) == 12 * 3, "one pair for each state of each source episode, swallowed actions or not"
    for pair in context_pairs:
        assert pair.first != pair.second
        house = pair.first.split("house ")[1].split(".")[0]
        assert f"house {house}." in pair.second
        first, second = (text.split("Room ")[1].split(".")[0] for text in (pair.first, pair.second))
        assert first == second


def test_with_a_single_seed_the_clean_observation_is_the_pair(
    perturbed_episodes: list[Episode], renderer: Renderer
) -> None:
    one = [episode for episode in perturbed_episodes if episode.perturbation_seed == 101]
    context_pairs = make_context_pairs(one, renderer)
    assert len(context_pairs) == 12 * 3
    assert all(("fly" in pair.first) != ("fly" in pair.second) for pair in context_pairs)


def test_identical_prompts_are_no_context_pairs(clean_episodes: list[Episode], renderer: Renderer) -> None:
    assert make_context_pairs(clean_episodes, renderer) == []


def test_consistency_loss_equals_the_divergence_of_separate_passes(
    perturbed_episodes: list[Episode], renderer: Renderer, tiny_slm: SLMConfig, model_cache: Path
) -> None:
    model = load_lm(tiny_slm, model_cache)
    with torch.no_grad():
        for parameter in model.parameters():  # as initialised, its distributions are all but uniform
            parameter.mul_(10 if parameter.ndim == 2 else 1)
    context_pairs = tokenize_context_pairs(make_context_pairs(perturbed_episodes, renderer), renderer)[:3]
    expected = []
    for pair in context_pairs:
        sides = [
            model(torch.tensor([[*prompt, *pair.action]])).logits[0, len(prompt) - 1 : -1]
            for prompt in (pair.first, pair.second)
        ]
        expected.append(jensen_shannon(*sides))
    assert torch.cat(expected).mean() > 1e-3
    found = consistency_loss(model, context_pairs, int(renderer.tokenizer.pad_token_id), torch.device("cpu"))
    torch.testing.assert_close(found, torch.cat(expected).mean(), atol=1e-6, rtol=1e-3)
    same = [type(pair)(pair.first, pair.first, pair.action) for pair in context_pairs]
    assert consistency_loss(model, same, 0, torch.device("cpu")).item() == pytest.approx(0.0, abs=1e-6)
    assert found.requires_grad


def test_actions_are_aligned_in_a_context_pair_batch(perturbed_episodes: list[Episode], renderer: Renderer) -> None:
    context_pairs = tokenize_context_pairs(make_context_pairs(perturbed_episodes, renderer), renderer)[:4]
    batch = context_pair_batch(context_pairs, 0, torch.device("cpu"))
    longest = batch["action_mask"].shape[1]
    for i, pair in enumerate(context_pairs):
        for row in (i, i + len(context_pairs)):
            assert batch["input_ids"][row, -longest:][batch["action_mask"][i]].tolist() == list(pair.action)


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4), st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_divergence_is_symmetric_bounded_and_zero_for_equals(first: list[float], second: list[float]) -> None:
    p, q = torch.tensor(first), torch.tensor(second)
    value = jensen_shannon(p, q).item()
    assert -1e-6 <= value <= math.log(2) + 1e-5
    assert value == pytest.approx(jensen_shannon(q, p).item(), abs=1e-6)
    assert jensen_shannon(p, p + 3.0).item() == pytest.approx(0.0, abs=1e-5)


def test_chosen_context_pairs_are_distinct_and_seeded(perturbed_episodes: list[Episode], renderer: Renderer) -> None:
    context_pairs = tokenize_context_pairs(make_context_pairs(perturbed_episodes, renderer), renderer)
    draws = [choose_context_pairs(context_pairs, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 5
