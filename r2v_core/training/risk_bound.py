"""What a risk seen on a few validation tasks says about a new one, and the bound that so few can't show at all."""

from __future__ import annotations

from math import ceil

from r2v_core.config.schema import RouterConfig
from r2v_core.errors import R2VError


def corrected(risk: float, n_tasks: int) -> float:
    """A risk seen on n tasks, corrected for how few they are: (n · risk + 1) / (n + 1).

    As if one more task failed under every seed: the correction of conformal risk control (Angelopoulos et al. 2024,
    "Conformal risk control", with losses ≤ 1). With exchangeable tasks, a threshold chosen so that this stays below ε
    has an expected risk below ε on a new task, for a fixed set of seeds in the tail; that the worst seeds are picked
    on the same tasks makes the figure larger, not smaller.
    """
    return (n_tasks * risk + 1.0) / (n_tasks + 1.0)


def check_bound(config: RouterConfig, n_tasks: int) -> None:
    """Refuse a bound that no result on so few validation tasks could show.

    Raises:
        R2VError: naming both keys.
    """
    least = corrected(0.0, n_tasks)
    if config.calibrate == "played" and config.teacher_share is None and least > config.cvar_epsilon:
        raise R2VError(
            f"training.router.cvar_epsilon: {config.cvar_epsilon:g} can't be shown with {n_tasks} validation tasks: "
            f"without a single failure the bound on the risk of a new task is {least:.3f}; raise "
            f"benchmark.splits.validation to {ceil(1 / max(config.cvar_epsilon, 1e-3)) - 1} or more, or "
            "cvar_epsilon"
        )
