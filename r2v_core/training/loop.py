"""The loop that the three language-model trainings share: arguments, order of the data, resuming, stopping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from r2v_core.config.schema import OptimConfig
from r2v_core.runs import stopping
from r2v_core.training.adapters import load_weights
from r2v_core.training.checkpoints import CHECKPOINTS, LOG_NAME, prepare_checkpoints, read_log
from r2v_core.training.run import TrainingRun
from r2v_core.training.workers import agree_to_stop

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

POOL_BATCHES = 16
"""Batches whose examples are sorted by length together: less padding, order still random across pools."""


def length_grouped_order(lengths: Sequence[int], optim: OptimConfig, processes: int, seed: int) -> list[int]:
    """The order in which examples are trained on: indices for exactly ``max_steps`` optimiser steps.

    Whole seeded permutations follow each other. Within pools of ``POOL_BATCHES`` steps, examples are sorted by length
    so that a batch holds similar lengths, then the batches are shuffled. Because the order is decided before training,
    a resumed run only has to skip what was done.

    Args:
        lengths: tokens of each of n examples.

    Returns:
        ``max_steps × batch_size × grad_accumulation × processes`` indices into ``lengths``.
    """
    generator = np.random.default_rng(seed)
    batch = optim.batch_size * optim.grad_accumulation * processes
    total = batch * optim.max_steps
    passes = -(-total // len(lengths))
    stream = np.concatenate([generator.permutation(len(lengths)) for _ in range(passes)])[:total]
    size = np.asarray(lengths)
    order: list[int] = []
    for start in range(0, total, batch * POOL_BATCHES):
        pool = stream[start : start + batch * POOL_BATCHES]
        pool = pool[np.argsort(size[pool], kind="stable")]
        batches = pool.reshape(-1, batch)
        order.extend(generator.permutation(batches, axis=0).reshape(-1).tolist())
    return order


def precision(dtype: torch.dtype) -> dict[str, bool]:
    """Mixed precision for a frozen base in ``dtype``: LoRA weights and optimiser stay in float32."""
    return {"bf16": dtype is torch.bfloat16, "fp16": dtype is torch.float16}


def arguments(run: TrainingRun, optim: OptimConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Keyword arguments that every ``TrainingArguments`` of this project starts from."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(run.run_dir / CHECKPOINTS),
        "max_steps": optim.max_steps,
        "per_device_train_batch_size": optim.batch_size,
        "gradient_accumulation_steps": optim.grad_accumulation,
        "learning_rate": optim.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(optim.warmup_ratio * optim.max_steps),
        "weight_decay": optim.weight_decay,
        "max_grad_norm": optim.max_grad_norm,
        "save_strategy": "steps",
        "save_steps": optim.save_steps,
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "logging_steps": optim.logging_steps,
        "logging_nan_inf_filter": False,
        "activation_checkpointing": on_gpu,  # memory is what is short there, and time is on a CPU
        "train_sampling_strategy": "sequential",  # the order is length_grouped_order()'s
        "seed": run.torch_seed,
        "data_seed": run.torch_seed,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "use_cpu": not on_gpu,
        **precision(dtype),
    }


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence progress bars and advice of transformers, TRL and datasets: the stage reports progress itself."""
    import logging

    import datasets

    from r2v_core.models.hub import quiet_loading

    trl = logging.getLogger("trl")
    level, bars = trl.level, datasets.are_progress_bars_disabled()
    trl.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with quiet_loading():
            yield
    finally:
        trl.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def train(trainer: Trainer, run: TrainingRun, optim: OptimConfig) -> list[dict[str, Any]]:
    """Train to the end, from the newest whole checkpoint if there is one, and return the training log.

    Raises:
        Stopped: if the process was asked to end, with a checkpoint of the last step done.
        R2VError: if the loss stops being a number, or W&B refuses the run.
    """
    from transformers import PrinterCallback

    from r2v_core.training.callbacks import (
        CheckpointComplete,
        StopAtStep,
        TensorBoardScalars,
        TrainingLog,
        WandbScalars,
    )

    if run.base is not None:
        run.report.log(
            f"building on {run.base.manifest.run_id}: {optim.max_steps} steps after its {run.steps_before}; the "
            "optimiser and its schedule start anew"
        )
        load_weights(trainer.accelerator.unwrap_model(trainer.model), run.base.artifact("adapter"))
    resume = prepare_checkpoints(run.run_dir)
    if resume:
        run.report.log(f"resuming from {resume.name} of {optim.max_steps} steps")
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingLog(run))
    trainer.add_callback(CheckpointComplete())
    trainer.add_callback(StopAtStep())
    with stopping.held(), ExitStack() as trackers:
        for tracker in (TensorBoardScalars, WandbScalars):
            trainer.add_callback(trackers.enter_context(closing(tracker(run, optim))))
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        if agree_to_stop() and (how := stopping.asked()):
            raise stopping.Stopped(how, f"saved at step {trainer.state.global_step} of {optim.max_steps}")
    return read_log(run.run_dir / LOG_NAME)


def model_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype of a model's (unquantised) floating-point weights."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
