"""Training the verifier: balanced binary cross-entropy on two heads, held-out AUC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from r2v_core.agent.continuations import ON_POLICY
from r2v_core.config.schema import LoRAConfig, SLMConfig, VerifierConfig
from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import auc, brier_score, two_classes
from r2v_core.models.verifier import HEADS, Packed, VerifierInfo, build, pack, write_info
from r2v_core.runs.processes import is_main
from r2v_core.training.adapters import ADAPTER, check_targets, lora_config, save_adapter
from r2v_core.training.examples import Renderer
from r2v_core.training.loop import arguments, length_grouped_order, quiet_libraries, train
from r2v_core.training.run import TrainingRun
from r2v_core.training.verifier_labels import LabelledState, class_episodes, shares
from r2v_core.training.workers import world_size

MAX_CLASS_WEIGHT = 10.0
"""Bound on how much the rarer class counts, so that a handful of labels can't dominate."""


def class_weights(found: Sequence[LabelledState]) -> tuple[list[str], torch.Tensor]:
    """Heads that have both classes, and ``[2 heads, 2 classes]`` weights that let both classes count the same.

    A head has a class if an episode has. A class of share s of the labels weighs 1/(2s), at most ``MAX_CLASS_WEIGHT``.

    Raises:
        R2VError: if neither head has both classes.
    """
    heads, weights = [], torch.ones(len(HEADS), 2)
    episodes = class_episodes(found)
    for i, (head, (_, share)) in enumerate(shares(found).items()):
        if all(episodes[head]):
            heads.append(head)
            weights[i] = torch.tensor([0.5 / (1 - share), 0.5 / share]).clamp(max=MAX_CLASS_WEIGHT)
    if not heads:
        raise R2VError(
            "the verifier has labels of one class only: no action that fails to make progress beside ones that do, and "
            "no episode that fails beside ones that succeed. Raise collection.alternatives and "
            "collection.explore_all_episodes, and collect again"
        )
    return heads, weights


def verifier_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor,
    head_weight: torch.Tensor,
    expected: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum over the heads of the balanced BCE per known label; and each head's part before weighting.

    Args:
        logits: [N, 2].
        labels: [N, 2] in [0, 1], NaN where unknown.
        class_weight: [2, 2], head × class.
        head_weight: [2].
        expected: [2] labels that a batch of this size has on average. Dividing by it, and not by how many this batch
            happens to have, gives every label the same weight, however unevenly a rare kind falls on batches.
    """
    known = ~labels.isnan()
    target = labels.nan_to_num(0.0)
    # −w₁t·log σ − w₀(1−t)·log(1−σ) is the BCE with the target w₁t / (w₁t + w₀(1−t)), times w₁t + w₀(1−t)
    positive, negative = class_weight[:, 1] * target, class_weight[:, 0] * (1 - target)
    weight = positive + negative
    loss = functional.binary_cross_entropy_with_logits(
        logits, positive / weight, weight=weight * known, reduction="none"
    )
    each = loss.sum(0) / expected
    return (each * head_weight).sum(), each.detach()


class Collator:
    """Packs states and their labels into tensors."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.pad = int(renderer.tokenizer.pad_token_id)

    def pack(self, batch: Sequence[LabelledState]) -> Packed:
        """The states' prompts and actions as one batch."""
        encode = self.renderer.encode_action
        return pack(
            [self.renderer.encode(state.prompt) for state in batch],
            [[encode(action) for action in state.actions] for state in batch],
            self.pad,
        )

    def __call__(self, batch: Sequence[LabelledState]) -> dict[str, torch.Tensor]:
        labels = [
            [math.nan if label is None else float(label) for label in pair]
            for state in batch
            for pair in zip(state.step, state.outcome, strict=True)
        ]
        return {**self.pack(batch).tensors(), "labels": torch.tensor(labels)}


class VerifierTrainer(Trainer):
    """The Trainer with the two-headed loss; logs each head's loss."""

    def __init__(
        self, *, class_weight: torch.Tensor, head_weight: torch.Tensor, labels_per_state: torch.Tensor, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.labels_per_state = labels_per_state.to(self.args.device)
        self.class_weight = class_weight.to(self.args.device)
        self.head_weight = head_weight.to(self.args.device)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: accumulation divides it
        self._each: list[torch.Tensor] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """The loss of a batch of :class:`Collator`."""
        labels = inputs.pop("labels")
        logits = model(**inputs)
        loss, each = verifier_loss(
            logits, labels, self.class_weight, self.head_weight, self.labels_per_state * len(inputs["input_ids"])
        )
        self._each.append(each)
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the heads' mean losses since the last log."""
        if "loss" in logs and self._each:
            for head, value in zip(HEADS, torch.stack(self._each).mean(0).tolist(), strict=True):
                logs[f"loss_{head}"] = value
            self._each.clear()
        super().log(logs, start_time)


def train_verifier(
    training: Sequence[LabelledState],
    held_out: Sequence[LabelledState],
    renderer: Renderer,
    slm: SLMConfig,
    lora: LoRAConfig,
    section: VerifierConfig,
    cache: Path,
    run: TrainingRun,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Train, write ``adapter/`` and ``verifier.json``, and return the log and the held-out metrics.

    Raises:
        R2VError: for labels of one class only, a model that does not fit, or a loss that diverges.
    """
    from peft import get_peft_model
    from transformers import set_seed

    heads, weights = class_weights(training)
    for head in set(HEADS) - set(heads):
        run.report.log(
            f"the {head} head has labels of one class only and is not trained; the other head answers for it"
        )
    head_weight = torch.tensor([section.step_weight, section.outcome_weight])
    head_weight *= torch.tensor([head in heads for head in HEADS])
    collator = Collator(renderer)
    lengths = [len(renderer.encode(state.prompt)) for state in training]
    order = length_grouped_order(lengths, section, world_size(), run.derive("order"))
    with quiet_libraries():
        set_seed(run.torch_seed)
        model = build(slm, cache, section.layers)
        check_targets(model, lora)
        dtype = next(model.backbone.parameters()).dtype
        wrapped = get_peft_model(model, lora_config(lora, modules_to_save=["heads"]))
        trainer = VerifierTrainer(
            model=wrapped,
            args=TrainingArguments(**arguments(run, section, dtype), remove_unused_columns=False),
            train_dataset=[training[i] for i in order],
            data_collator=collator,
            class_weight=weights,
            head_weight=head_weight,
            labels_per_state=torch.tensor([max(n, 1) / len(training) for n, _ in shares(training).values()]),
        )
        log = train(trainer, run, section)
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), run.run_dir / ADAPTER, slm.model)
        if is_main():
            write_info(VerifierInfo(base=slm.model, layers=section.layers, heads=heads), run.run_dir)
        metrics = evaluate(trainer, held_out, collator, section.batch_size)
    return log, metrics


@torch.inference_mode()
def evaluate(trainer: Trainer, found: Sequence[LabelledState], collator: Collator, batch_size: int) -> dict[str, float]:
    """AUC and Brier score of each head on held-out states; a head without both classes there has no AUC.

    Those of the small model's own states stand apart, under names that end in ``_on_policy``.
    """
    own = [state for state in found if state.on_policy]
    metrics = _evaluate(trainer, [state for state in found if not state.on_policy], collator, batch_size)
    if own:
        metrics |= {f"{name}_{ON_POLICY}": v for name, v in _evaluate(trainer, own, collator, batch_size).items()}
    return metrics


def _evaluate(
    trainer: Trainer, found: Sequence[LabelledState], collator: Collator, batch_size: int
) -> dict[str, float]:
    model = trainer.model.eval()
    logits, labels = [], []
    for start in range(0, len(found), batch_size):
        batch = collator(found[start : start + batch_size])
        labels.append(batch.pop("labels"))
        with trainer.compute_loss_context_manager():
            logits.append(model(**{key: value.to(trainer.args.device) for key, value in batch.items()}).float().cpu())
    metrics: dict[str, float] = {"held_out_states": len(found)}
    for i, head in enumerate(HEADS):
        truth = torch.cat(labels)[:, i] if labels else torch.empty(0)
        known = ~truth.isnan()
        metrics[f"held_out_{head}"] = int(known.sum())
        if known.any():
            for name, value in quality(torch.sigmoid(torch.cat(logits)[known, i]), truth[known]).items():
                metrics[f"{name}_{head}"] = value
    return metrics


def quality(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Brier score, and AUC where there are both classes, of scores [N] against labels [N] in [0, 1].

    Soft labels count as in :mod:`r2v_core.evaluation.calibration`.
    """
    result = {"brier": brier_score(scores.double(), labels.double())}
    if two_classes(labels):
        result["auc"] = auc(scores, labels)
    return result
