"""Stage 8, clean: the held-out tasks without perturbations."""

from __future__ import annotations

from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.evaluate import evaluate


def run(ctx: StageContext) -> StageResult:
    """Evaluate every method without perturbations."""
    return evaluate(ctx, "clean")


if __name__ == "__main__":
    from r2v_core.stages.cli import run_module

    run_module("evaluate_clean")
