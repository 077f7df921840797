"""The world z: how severe each family of noise is there, for all tasks and steps alike."""

from __future__ import annotations

import math
from collections.abc import Iterable

from r2v_core.digest import rng

METADATA = "severity"
"""Where an episode's metadata says how severe its world was: family → severity."""


def severity(z: int, family: str, spread: float) -> float:
    """What a world multiplies a family's probabilities with: log-normal, mean 1, standard deviation ``spread``.

    exp(σ x − σ²/2) with σ² = ln(1 + spread²) and x standard normal, the first draw of ``rng(z, "severity", family)``: a
    larger spread never changes which of two worlds is the more severe. 1 where the spread is 0.
    """
    if spread == 0:
        return 1.0
    variance = math.log1p(spread**2)
    return math.exp(math.sqrt(variance) * float(rng(z, "severity", family).standard_normal()) - variance / 2)


def severities(z: int, families: Iterable[str], spread: float) -> dict[str, float]:
    """The :func:`severity` of each family in a world; empty where worlds do not differ."""
    return {family: severity(z, family, spread) for family in families} if spread else {}
