"""The names in a table: in what order methods and seeds come, which rows speak for an experiment, intervals."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from r2v_core.agent.rules.table import RULES


def method_rank(method: str) -> tuple[int, str]:
    """Sort key that puts the methods in the order of the routing rules; others follow by name."""
    order = list(RULES)
    return (order.index(method) if method in order else len(order), method)


def is_probabilistic(method: str) -> bool:
    """Whether a method's risk score claims to be the probability that the small model's action fails.

    The entropy rule's score is in nats, others have none: no calibration is reported for them.
    """
    return method in RULES and RULES[method].probabilistic


def seed_key(seed: str) -> tuple[int, int]:
    """Sort key of the seed column: numbers first, then 'all'."""
    return (0, int(seed)) if seed.isdigit() else (1, 0)


def summarised_seed(seeds: list[str]) -> str:
    """The rows that speak for the experiment: 'all' where seeds were aggregated, else the only seed."""
    return max(set(seeds), key=seed_key)


def drawn_over(seed: str) -> str:
    """What the intervals of a seed's rows are over ('all': of several seeds), in words."""
    if seed == "all":
        return "over training seeds, templates and worlds"
    return "over templates and worlds, given this training seed"


def seed_label(seeds: Collection[int]) -> str:
    """What the seed column says of a number made from these partition seeds: the only one, or 'all'."""
    return str(next(iter(seeds))) if len(seeds) == 1 else "all"


def format_interval(low: float, high: float) -> str:
    """``[0.512, 0.730]``, empty where there is none."""
    return "" if np.isnan(low) or np.isnan(high) else f"[{low:.3f}, {high:.3f}]"
