"""Behaviour cloning: examples, labels, training, and resuming after kill -9."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r2v_core.config.schema import BCConfig, LoRAConfig, SLMConfig
from r2v_core.engines import open_engine
from r2v_core.errors import R2VError
from r2v_core.models.hub import load_lm
from r2v_core.runs.spec import StageContext
from r2v_core.stages import train_bc as stage
from r2v_core.training import callbacks
from r2v_core.training.bc import make_examples, tokenize
from r2v_core.training.checkpoints import CHECKPOINTS, read_log
from r2v_core.training.examples import Renderer
from r2v_core.training.trl_adapter import score_labels_only
from r2v_core.trajectory import Episode

Context = Callable[..., StageContext]
QUICK = {"max_steps": 6, "batch_size": 4, "save_steps": 2, "learning_rate": 5e-3}


def test_examples_take_the_experts_action_also_where_exploration_acted(
    clean_episodes: list[Episode], renderer: Renderer
) -> None:
    lost = next(episode for episode in clean_episodes if not episode.success)
    examples = make_examples([lost], [], renderer, BCConfig(clean_share=1.0), 1)
    assert {example.action for example in examples} == {step.expert_action for step in lost.steps}
    assert "look" not in {example.action for example in examples}
    with_history = [example for example in examples if "Done: look" in example.prompt]
    assert with_history, "the prompt shows what was really done before"


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_clean_share_and_limit(
    share: float, clean_episodes: list[Episode], perturbed_episodes: list[Episode], renderer: Renderer
) -> None:
    examples = make_examples(
        clean_episodes, perturbed_episodes, renderer, BCConfig(clean_share=share, max_examples=16), 1
    )
    assert len(examples) == 16
    assert sum(not example.perturbed for example in examples) == round(16 * share)


def test_no_example_is_one_clear_error(clean_episodes: list[Episode], renderer: Renderer) -> None:
    with pytest.raises(R2VError, match=r"training.bc.clean_share"):
        make_examples(clean_episodes, [], renderer, BCConfig(clean_share=0.0), 1)


def test_loss_covers_the_action_and_its_end_only(clean_episodes: list[Episode], renderer: Renderer) -> None:
    examples = make_examples(clean_episodes, [], renderer, BCConfig(clean_share=1.0), 1)
    for example, row in zip(examples, tokenize(examples, renderer), strict=True):
        kept = [token for token in row["labels"] if token != -100]
        assert renderer.tokenizer.decode(kept) == example.action + renderer.tokenizer.eos_token
        assert renderer.tokenizer.decode(row["input_ids"]) == example.prompt + example.action + "<|im_end|>"


def test_training_writes_adapter_log_curve_and_preview(context: Context, report: Any) -> None:
    ctx = context("train_bc", bc=QUICK)
    result = stage.run(ctx)
    assert {path.name for path in (ctx.run_dir / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    log = read_log(ctx.run_dir / "training_log.jsonl")
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "learning_rate"} <= set(log[0])
    assert result.counts["loss_last"] < result.counts["loss_first"]
    assert math.isclose(log[0]["loss"], math.log(49152), rel_tol=0.05), "a random model knows nothing about actions"
    assert report.done[-1] == 6
    assert result.scratch == (CHECKPOINTS,) and (ctx.run_dir / CHECKPOINTS).is_dir()  # the runner removes it
    assert not (ctx.run_dir / "wandb").exists()
    for name in result.artifacts.values():
        assert (ctx.run_dir / name).exists()
    config = json.loads((ctx.run_dir / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == ctx.config.slm.model


def test_the_adapter_is_what_the_policy_plays_with(context: Context, tiny_slm: SLMConfig, model_cache: Path) -> None:
    ctx = context("train_bc", bc=QUICK)
    stage.run(ctx)
    base = open_engine(tiny_slm, model_cache)
    tuned = open_engine(tiny_slm, model_cache, ctx.run_dir / "adapter")
    changed = [
        name
        for (name, a), b in zip(base.model.named_parameters(), tuned.model.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert len(changed) == 2 * 7, "every target module of both layers"


def test_without_steps_the_small_model_goes_on_as_it_comes(
    context: Context, tiny_slm: SLMConfig, model_cache: Path
) -> None:
    ctx = context("train_bc", bc={"max_steps": 0})
    result = stage.run(ctx)
    assert result.counts == {"steps": 0} and set(result.artifacts) == {"adapter", "preview"}
    assert "as it comes" in (ctx.run_dir / "preview.md").read_text()
    base = open_engine(tiny_slm, model_cache)
    same = open_engine(tiny_slm, model_cache, ctx.run_dir / "adapter")
    assert all(torch.equal(a, b) for a, b in zip(base.model.parameters(), same.model.parameters(), strict=True))
    again = stage.run(context("train_bc", name="again", bc={"max_steps": 0}))
    assert again.digest == result.digest


def test_nothing_is_added_to_a_run_without_steps(
    context: Context, make_folder_run: Callable[..., Any], tmp_path: Path
) -> None:
    base = make_folder_run(tmp_path / "base", "train_bc", {"adapter": "adapter"})
    with pytest.raises(R2VError, match=r"training\.bc\.max_steps: 0 adds nothing"):
        stage.run(context("train_bc", bc={"max_steps": 0}, inputs={"base": base}))


class Killed(BaseException):
    """Ends training in the middle of a step, as a signal does."""


def test_an_interrupted_run_resumes_to_the_same_adapter(
    context: Context, monkeypatch: pytest.MonkeyPatch, report: Any
) -> None:
    whole = stage.run(context("train_bc", name="whole", bc=QUICK))
    ctx = context("train_bc", name="killed", bc=QUICK)
    original = callbacks.TrainingLog.on_log

    def kill_at_five(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        original(self, args, state, control, logs, **rest)
        if state.global_step == 5:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.TrainingLog, "on_log", kill_at_five)
        with pytest.raises(Killed):
            stage.run(ctx)
    assert read_log(ctx.run_dir / "training_log.jsonl")[-1]["step"] == 5
    shutil.copytree(ctx.run_dir / CHECKPOINTS / "checkpoint-4", ctx.run_dir / CHECKPOINTS / "checkpoint-5")
    (ctx.run_dir / CHECKPOINTS / "checkpoint-5" / "complete.json").unlink()
    (ctx.run_dir / CHECKPOINTS / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"half")
    resumed = stage.run(ctx)
    assert any("resuming from checkpoint-4" in line for line in report.lines)
    assert resumed.digest == whole.digest
    logs = [read_log(ctx.run_dir.parent / name / "training_log.jsonl") for name in ("whole", "killed")]
    assert logs[0] == logs[1]


def test_another_seed_or_setting_changes_the_digest(context: Context) -> None:
    first = stage.run(context("train_bc", name="a", bc=QUICK))
    second = stage.run(context("train_bc", name="b", bc={**QUICK, "learning_rate": 1e-3}))
    assert first.digest != second.digest


def test_only_labelled_positions_reach_the_language_model_head(tiny_slm: SLMConfig, model_cache: Path) -> None:
    from trl.trainer.utils import add_fused_lm_head

    model = load_lm(tiny_slm, model_cache)
    ids = torch.randint(0, 1000, (2, 50))
    labels = ids.masked_fill(torch.arange(50) < 45, -100)
    expected = model(ids).logits[:, 44:49].float().log_softmax(-1).gather(-1, ids[:, 45:, None]).squeeze(-1)
    add_fused_lm_head(model)
    rows = []
    from trl.trainer import utils

    kernel = utils._ChunkedLogProbFunction.apply
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            utils._ChunkedLogProbFunction,
            "apply",
            lambda hidden, *rest: rows.append(len(hidden)) or kernel(hidden, *rest),
        )
        with score_labels_only():
            found = model(input_ids=ids, labels=labels, fused_lm_head=True).log_probs
    assert rows == [10]
    torch.testing.assert_close(found[:, 44:], expected, atol=1e-4, rtol=1e-4)


def test_unknown_target_module_names_the_known_ones(context: Context) -> None:
    with pytest.raises(R2VError, match=r"no linear layer 'query'; choose from down_proj"):
        stage.run(context("train_bc", bc=QUICK, lora={"target_modules": ["query"]}))


def test_a_diverging_loss_stops_with_advice(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = context("train_bc", bc={**QUICK, "learning_rate": 1e30, "warmup_ratio": 0.0, "max_grad_norm": 1e30})
    with pytest.raises(R2VError, match=r"lower training.bc.learning_rate"):
        stage.run(ctx)


def test_wandb_offline_stays_in_the_run_directory_and_holds_no_prompt(context: Context) -> None:
    ctx = context("train_bc", bc={**QUICK, "max_steps": 2}, wandb="offline")
    stage.run(ctx)
    files = [path for path in (ctx.run_dir / "wandb").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name.startswith("events.out.tfevents") for path in (ctx.run_dir / "tensorboard").iterdir())
    for path in [*files, *(ctx.run_dir / "tensorboard").iterdir()]:
        content = path.read_bytes()
        assert b"There is a" not in content and b"You play a text game" not in content, path


def test_no_training_episode_is_one_clear_error(
    context: Context, clean_episodes: list[Episode], tmp_path: Path
) -> None:
    from r2v_core.runs.parquet import write_parquet

    other = [episode.model_copy(update={"metadata": {"split": "test"}}) for episode in clean_episodes]
    ctx = context("train_bc")
    write_parquet(tmp_path / "run-collect" / "trajectories.parquet", other, Episode)
    with pytest.raises(R2VError, match="no episode of split 'train'"):
        stage.run(ctx)


def test_the_real_model_learns_from_two_steps(context: Context, real_slm: SLMConfig) -> None:
    bc = {"max_steps": 2, "batch_size": 2, "learning_rate": 1e-3, "warmup_ratio": 0.0}
    ctx = context("train_bc", slm=real_slm, bc=bc, lora=LoRAConfig(r=4).model_dump())
    result = stage.run(ctx)
    assert result.counts["loss_last"] < result.counts["loss_first"] < 8
