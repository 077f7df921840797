"""Direct preference optimisation (Rafailov et al. 2023) from the BC adapter, plus the consistency term.

TRL's DPOTrainer, given a model that carries an adapter already, keeps a frozen copy of that adapter named ``ref`` and
computes the reference log-probabilities with it: the reference is the BC policy, not the bare base model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trl import DPOConfig as TRLConfig
from trl import DPOTrainer

from r2v_core.config.schema import DPOConfig, SLMConfig
from r2v_core.digest import derive_seed
from r2v_core.models.hub import load_adapter, load_lm
from r2v_core.training.adapters import ADAPTER, save_adapter
from r2v_core.training.consistency import (
    ContextPair,
    ContextPairTokens,
    choose_context_pairs,
    consistency_loss,
    tokenize_context_pairs,
)
from r2v_core.training.examples import Renderer
from r2v_core.training.loop import arguments, length_grouped_order, model_dtype, quiet_libraries, train
from r2v_core.training.preference_check import check
from r2v_core.training.preferences import Pair
from r2v_core.training.run import TrainingRun
from r2v_core.training.trl_adapter import TokenizedPairs, score_labels_only
from r2v_core.training.workers import world_size


def tokenize_pairs(pairs: Sequence[Pair], renderer: Renderer) -> list[dict[str, list[int]]]:
    """Token ids of prompts, chosen and rejected actions; end-of-turn tokens included."""
    return [
        {
            "prompt_ids": renderer.encode(pair.prompt),
            "chosen_ids": renderer.encode_action(pair.chosen),
            "rejected_ids": renderer.encode_action(pair.rejected),
        }
        for pair in pairs
    ]


class ConsistentDPOTrainer(TokenizedPairs, DPOTrainer):
    """DPOTrainer on tokenised pairs (:func:`tokenize_pairs`) whose loss is DPO + λ_cons · JSD; logs both parts."""

    def __init__(
        self,
        *,
        context_pairs: Sequence[ContextPairTokens],
        weight: float,
        context_pairs_per_step: int,
        pad: int,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.context_pairs = context_pairs
        self.weight = weight if context_pairs else 0.0
        self.context_pairs_per_step = context_pairs_per_step
        self.pad = pad
        self.twin_seed = seed

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """DPO loss plus the weighted consistency term; which pairs it uses depends on seed, step and process only."""
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        self.log_number("loss_dpo", loss.item())
        if self.weight:
            name = (self.twin_seed, self.state.global_step, self.args.process_index)
            draw = torch.Generator().manual_seed(derive_seed(*name))
            chosen = choose_context_pairs(self.context_pairs, self.context_pairs_per_step, draw)
            divergence = consistency_loss(model, chosen, self.pad, inputs["input_ids"].device)
            self.log_number("loss_consistency", divergence.item())
            loss = loss + self.weight * divergence
        return loss


def make_trainer(
    pairs: Sequence[Pair],
    context_pairs: Sequence[ContextPair],
    renderer: Renderer,
    slm: SLMConfig,
    adapter: Path,
    dpo: DPOConfig,
    cache: Path,
    run: TrainingRun,
) -> ConsistentDPOTrainer:
    """The trainer, ready to train; its model carries the adapters 'default' (trained) and 'ref' (frozen)."""
    from datasets import Dataset
    from transformers import set_seed

    rows = tokenize_pairs(pairs, renderer)
    lengths = [sum(map(len, row.values())) for row in rows]
    order = length_grouped_order(lengths, dpo, world_size(), run.derive("order"))
    set_seed(run.torch_seed)
    model = load_adapter(load_lm(slm, cache), adapter, trainable=True)
    return ConsistentDPOTrainer(
        model=model,
        args=TRLConfig(
            **arguments(run, dpo, model_dtype(model)),
            beta=dpo.beta,
            loss_type="sigmoid",
            max_length=None,
        ),
        train_dataset=Dataset.from_list(rows).select(order),
        processing_class=renderer.tokenizer,
        context_pairs=tokenize_context_pairs(context_pairs, renderer),
        weight=dpo.consistency_weight,
        context_pairs_per_step=dpo.consistency_batch,
        pad=int(renderer.tokenizer.pad_token_id),
        seed=run.derive("consistency"),
    )


def train_dpo(
    pairs: Sequence[Pair],
    context_pairs: Sequence[ContextPair],
    renderer: Renderer,
    slm: SLMConfig,
    adapter: Path,
    dpo: DPOConfig,
    cache: Path,
    run: TrainingRun,
    held: tuple[Sequence[Pair], Sequence[ContextPair]] = ((), ()),
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Train from the BC ``adapter`` and write the new one to ``<run_dir>/adapter``.

    Returns:
        The training log, and what ``held`` (preference and context pairs of other templates) says of it
        (:func:`~r2v_core.training.preference_check.check`).

    Raises:
        R2VError: if the model or the BC adapter can't be loaded, or the loss diverges.
    """
    with quiet_libraries(), score_labels_only():
        trainer = make_trainer(pairs, context_pairs, renderer, slm, adapter, dpo, cache, run)
        log = train(trainer, run, dpo)
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_adapter(model, run.run_dir / ADAPTER, slm.model)
        measured = check(model, *held, renderer, dpo.beta, run.seed)
    return log, measured
