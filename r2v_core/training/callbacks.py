"""Trainer callbacks: the training log, progress, whole checkpoints, scalars for TensorBoard and W&B."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r2v_core.config.schema import OptimConfig
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import is_main
from r2v_core.training.checkpoints import COMPLETE, LOG_NAME
from r2v_core.training.run import TrainingRun
from r2v_core.training.tracking import TENSORBOARD, start_wandb
from r2v_core.training.workers import agree_to_stop, wait_for_everyone

_SKIPPED = frozenset({"total_flos", "epoch", "num_tokens"})


def scalars(logs: dict[str, Any]) -> dict[str, float]:
    """The numbers of a trainer's log entry, rounded to 6 significant digits."""
    return {
        key: float(f"{value:.6g}")
        for key, value in logs.items()
        if key not in _SKIPPED and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


class TrainingLog(TrainerCallback):
    """Appends ``{"step", "loss", "learning_rate", …}`` to the training log and reports progress.

    Raises:
        R2VError: as soon as the loss is not a number, because every later step would be lost as well.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.path = run.run_dir / LOG_NAME

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """One line for each logging step; the summary at the end of training has no 'loss' and is left out."""
        if not logs or "loss" not in logs:
            return
        section = self.run.stage.removeprefix("train_")
        if not math.isfinite(logs["loss"]):
            raise R2VError(
                f"the loss is {logs['loss']} at step {state.global_step}; lower training.{section}.learning_rate or "
                f"raise training.{section}.warmup_ratio"
            )
        if not is_main():
            return
        line = {"step": state.global_step, **scalars(logs)}
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        self.run.report.progress("steps", state.global_step, state.max_steps, loss=line["loss"])


class CheckpointComplete(TrainerCallback):
    """Marks a checkpoint as whole once all of it is written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Runs after model, optimiser, scheduler, trainer state and every process's random state are on disk."""
        wait_for_everyone()
        if is_main():
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            write_atomic(folder / COMPLETE, json.dumps({"step": state.global_step}) + "\n")


class StopAtStep(TrainerCallback):
    """Ends training after the step in which the process was asked to end, with a checkpoint.

    All processes end after the same step, whichever was asked.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The optimiser's step is done; what is set here takes effect before the next one."""
        if agree_to_stop():
            control.should_save = control.should_training_stop = True


class TensorBoardScalars(TrainerCallback):
    """Losses and learning rates as TensorBoard event files, readable while training goes on."""

    def __init__(self, run: TrainingRun, optim: OptimConfig) -> None:
        self._folder = run.run_dir / TENSORBOARD
        self._before = run.steps_before
        self._writer: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A resumed training hides what an earlier attempt wrote beyond its checkpoint."""
        if is_main():
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(
                str(self._folder), purge_step=self._before + state.global_step + 1, flush_secs=10
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Pass a logging step's numbers on."""
        if self._writer is not None and logs and "loss" in logs:
            for name, value in scalars(logs).items():
                self._writer.add_scalar(name, value, self._before + state.global_step)

    def close(self) -> None:
        """Write what is left; safe to call when there is none."""
        if self._writer is not None:
            self._writer.close()


class WandbScalars(TrainerCallback):
    """Losses and learning rates to W&B; never text, code or console output."""

    def __init__(self, run: TrainingRun, optim: OptimConfig) -> None:
        self._wandb: Any = None
        self._before = run.steps_before
        if run.wandb.mode == "disabled" or not is_main():
            return
        self._wandb = start_wandb(run.wandb, run.run_id, run.stage, run.run_dir, optim.model_dump(mode="json"))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Pass a logging step's numbers on."""
        if self._wandb is not None and logs and "loss" in logs:
            self._wandb.log(scalars(logs), step=self._before + state.global_step)

    def close(self) -> None:
        """End the W&B run; safe to call when there is none."""
        if self._wandb is not None:
            self._wandb.finish()
