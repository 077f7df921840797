"""Behaviour cloning: supervised fine-tuning of a LoRA adapter on the teacher's actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2v_core.config.schema import BCConfig, LoRAConfig, SLMConfig
from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.models.hub import load_lm
from r2v_core.training.adapters import ADAPTER, check_targets, lora_config, save_adapter
from r2v_core.training.examples import Renderer, states
from r2v_core.training.loop import arguments, length_grouped_order, model_dtype, quiet_libraries, train
from r2v_core.training.run import TrainingRun
from r2v_core.training.trl_adapter import score_labels_only
from r2v_core.training.workers import world_size
from r2v_core.trajectory import Episode, teacher_action


@dataclass(frozen=True)
class Example:
    """One state and what the teacher does there."""

    prompt: str
    action: str
    perturbed: bool


def make_examples(
    clean: Sequence[Episode],
    perturbed: Sequence[Episode],
    renderer: Renderer,
    bc: BCConfig,
    seed: int,
    key: str = "training.bc",
) -> list[Example]:
    """Every state where the teacher's action is known, also those that exploration led to; identical ones once.

    ``bc.clean_share`` of them come from unperturbed episodes: the side that has too many is thinned out at random.

    Args:
        key: the config section that ``bc`` is, for messages.

    Raises:
        R2VError: if no state with a known teacher action is left.
    """
    pools = []
    for episodes, noisy in ((clean, False), (perturbed, True)):
        pool: dict[tuple[str, str], Example] = {}
        for episode, index in states(episodes):
            action = teacher_action(episode.steps[index])
            if action is not None:
                prompt = renderer.prompt(episode, index)
                pool.setdefault((prompt, action), Example(prompt, action, noisy))
        pools.append(list(pool.values()))
    sizes = _sizes(len(pools[0]), len(pools[1]), bc.clean_share, bc.max_examples)
    draw = rng(seed, "bc-examples")
    chosen = [pool[i] for pool, size in zip(pools, sizes, strict=True) for i in draw.permutation(len(pool))[:size]]
    if not chosen:
        raise R2VError(
            f"{key}: no example to learn from ({len(pools[0])} clean, {len(pools[1])} perturbed states with a "
            f"known teacher action, clean_share {bc.clean_share:g}); collect more, or change {key}.clean_share"
        )
    return chosen


def _sizes(clean: int, perturbed: int, share: float, limit: int) -> tuple[int, int]:
    """How many clean and perturbed examples to keep, with ``share`` of them clean and at most ``limit`` in all."""
    total = min(clean / share if share else float("inf"), perturbed / (1 - share) if share < 1 else float("inf"))
    if limit:
        total = min(total, limit)
    n_clean = min(clean, round(total * share))
    return n_clean, min(perturbed, round(total - n_clean))


def tokenize(examples: Sequence[Example], renderer: Renderer) -> list[dict[str, list[int]]]:
    """``input_ids`` and ``labels``; labels are −100 but on the action and its end-of-turn token."""
    rows = []
    for example in examples:
        prompt, action = renderer.encode(example.prompt), renderer.encode_action(example.action)
        rows.append({"input_ids": prompt + action, "labels": [-100] * len(prompt) + action})
    return rows


def train_bc(
    examples: Sequence[Example],
    renderer: Renderer,
    slm: SLMConfig,
    lora: LoRAConfig,
    bc: BCConfig,
    cache: Path,
    run: TrainingRun,
) -> list[dict[str, Any]]:
    """Train on ``examples``, write the adapter to ``<run_dir>/adapter``, and return the training log.

    Raises:
        R2VError: if the model can't be loaded or does not fit the LoRA config, or the loss diverges.
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    rows = tokenize(examples, renderer)
    lengths = [len(row["input_ids"]) for row in rows]
    order = length_grouped_order(lengths, bc, world_size(), run.derive("order"))
    with quiet_libraries(), score_labels_only():
        set_seed(run.torch_seed)
        model = load_lm(slm, cache)
        check_targets(model, lora)
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**arguments(run, bc, model_dtype(model)), max_length=None),
            train_dataset=Dataset.from_list(rows).select(order),
            processing_class=renderer.tokenizer,
            peft_config=lora_config(lora, task_type="CAUSAL_LM"),
        )
        log = train(trainer, run, bc)
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), run.run_dir / ADAPTER, slm.model)
    return log
