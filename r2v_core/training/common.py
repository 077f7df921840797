"""What the three language-model trainings share: data order, checkpoints that can be resumed, adapters on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from r2v_core.config.schema import LoRAConfig, OptimConfig
from r2v_core.digest import digest_file, digest_of
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import write_atomic
from r2v_core.training.run import TrainingRun

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, Trainer

CHECKPOINTS = "checkpoints"
COMPLETE = "complete.json"
"""Written into a checkpoint after everything else; a checkpoint without it was cut short and is ignored."""
ADAPTER = "adapter"
LOG_NAME = "training_log.jsonl"
POOL_BATCHES = 16
"""Batches whose examples are sorted by length together: less padding, order still random across pools."""


def world_size() -> int:
    """Processes that train together (``accelerate launch``); 1 when run alone."""
    from accelerate import PartialState

    return int(PartialState().num_processes)


def is_main_process() -> bool:
    """Whether this process is the one that writes files."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def wait_for_everyone() -> None:
    """Block until all processes that train together are here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def arrange(lengths: Sequence[int], optim: OptimConfig, processes: int, seed: int) -> list[int]:
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
        "train_sampling_strategy": "sequential",  # the order is arrange()'s
        "seed": run.torch_seed,
        "data_seed": run.torch_seed,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "use_cpu": not on_gpu,
        **precision(dtype),
    }


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
                f"training.lora.target_modules: this model has no linear layer '{target}'; it has: "
                f"{', '.join(sorted(names - {'lm_head', 'heads'}))}"
            )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None. Those that were cut short while being written are not considered."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def prepare_checkpoints(run_dir: Path) -> Path | None:
    """Delete half-written checkpoints, cut the training log back to the newest whole one, and return that."""
    folder = run_dir / CHECKPOINTS
    resume = last_checkpoint(folder)
    if is_main_process():
        for path in folder.glob("checkpoint-*"):
            if not (path / COMPLETE).exists():
                shutil.rmtree(path)
        step = int(resume.name.rpartition("-")[2]) if resume else 0
        log = run_dir / LOG_NAME
        if log.exists():
            kept = [line for line in read_log(log) if line["step"] <= step]
            write_atomic(log, "".join(json.dumps(line) + "\n" for line in kept))
    wait_for_everyone()
    return resume


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``training_log.jsonl``; a last line that a killed process left half-written is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


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
        R2VError: if the loss stops being a number, or W&B refuses the run.
    """
    from transformers import PrinterCallback

    from r2v_core.training.callbacks import CheckpointComplete, TensorBoardScalars, TrainingLog, WandbScalars

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
    with ExitStack() as trackers:
        for tracker in (TensorBoardScalars, WandbScalars):
            trainer.add_callback(trackers.enter_context(closing(tracker(run, optim))))
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return read_log(run.run_dir / LOG_NAME)


def load_weights(model: Any, folder: Path) -> None:
    """Put the weights of a saved adapter into the adapter 'default' of a peft model.

    Raises:
        R2VError: if they don't fit the model.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    try:
        outcome = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    except RuntimeError as error:
        raise R2VError(f"{folder}: does not fit this model ({str(error).splitlines()[0]})") from error
    if outcome.unexpected_keys:
        raise R2VError(f"{folder}: does not fit this model, which has no '{outcome.unexpected_keys[0]}'")


def clear_checkpoints(run_dir: Path) -> None:
    """Delete the checkpoints of a training that is finished and saved."""
    wait_for_everyone()
    if is_main_process():
        shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Write the adapter 'default' of a peft model: safetensors and a config with no path of this machine in it."""
    if not is_main_process():
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


def adapter_digest(folder: Path) -> str:
    """Digest of an adapter: its weights and its config, without the base model's path and the library's version."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("base_model_name_or_path", "peft_version", "revision"):
        config.pop(key, None)
    return digest_of({"weights": digest_file(folder / "adapter_model.safetensors"), "config": config})


def model_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype of a model's (unquantised) floating-point weights."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
