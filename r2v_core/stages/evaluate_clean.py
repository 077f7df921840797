"""Stage 8, clean: the held-out tasks without perturbations."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("evaluate_clean")

from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.evaluate import evaluate


def run(ctx: StageContext) -> StageResult:
    """Evaluate every method without perturbations."""
    return evaluate(ctx, "clean")
