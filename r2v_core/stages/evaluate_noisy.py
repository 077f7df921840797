"""Stage 8, noisy: the held-out tasks under the test perturbation seeds."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("evaluate_noisy")

from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.evaluate import evaluate


def run(ctx: StageContext) -> StageResult:
    """Evaluate every method under the test perturbation seeds."""
    return evaluate(ctx, "noisy")
