"""Stage 8, noisy: the held-out tasks under the test perturbation seeds."""

from __future__ import annotations

from r2v_core.stages.evaluate import evaluate
from r2v_core.stages.spec import StageContext, StageResult


def run(ctx: StageContext) -> StageResult:
    """Evaluate every method under the test perturbation seeds."""
    return evaluate(ctx, "noisy")


if __name__ == "__main__":
    from r2v_core.stages.cli import run_module

    run_module("evaluate_noisy")
