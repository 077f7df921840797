"""One training of a language model: where it runs, what its random numbers come from, what it builds on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from r2v_core.digest import derive_seed
from r2v_core.runs.fingerprint import BASE
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import exit_workers
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageResult, UpstreamRun
from r2v_core.training.adapters import ADAPTER, adapter_digest
from r2v_core.training.tracking import Wandb, wandb_settings


@dataclass(frozen=True)
class TrainingRun:
    """Where and how one training runs; what is trained is the caller's business."""

    run_dir: Path
    run_id: str
    stage: str
    seed: int
    report: Reporter
    wandb: Wandb = field(default_factory=Wandb)
    base: UpstreamRun | None = None
    """The finished training that this one builds on."""

    @property
    def steps_before(self) -> int:
        """Optimiser steps of the trainings that this one builds on."""
        counts = self.base.manifest.counts if self.base else {}
        return round(counts.get("steps", 0) + counts.get("steps_before", 0))

    @property
    def counts(self) -> dict[str, float]:
        """For the manifest."""
        return {"steps_before": self.steps_before} if self.base else {}

    def derive(self, *names: str) -> int:
        """A seed for one purpose; another one after every extension, which would else repeat the first steps' draws."""
        return derive_seed(self.seed, self.stage, *names, *([self.steps_before] if self.base else []))

    @property
    def torch_seed(self) -> int:
        """The seed of torch, numpy and random: 31 bits, because numpy takes no more than 32."""
        return self.derive() % (1 << 31)


def training_run(ctx: StageContext) -> TrainingRun:
    """The training that a stage is about to do.

    Raises:
        R2VError: if W&B is asked for and can't be used.
    """
    tracking = wandb_settings(ctx.config.training)
    base = ctx.inputs.get(BASE)
    return TrainingRun(ctx.run_dir, ctx.spec.run_id, ctx.spec.stage, ctx.seed, ctx.report, tracking, base)


def untrained(ctx: StageContext, write_adapter: Callable[[Path], object], why: str) -> StageResult:
    """The result of a training of no steps, which the main process alone makes.

    Args:
        write_adapter: puts the adapter that stands in for a trained one into a folder.
        why: what the preview says.
    """
    exit_workers()
    folder = ctx.run_dir / ADAPTER
    write_adapter(folder)
    write_atomic(ctx.run_dir / "preview.md", f"{why}\n")
    artifacts = {"adapter": ADAPTER, "preview": "preview.md"}
    return StageResult(digest=adapter_digest(folder), artifacts=artifacts, counts={"steps": 0})
