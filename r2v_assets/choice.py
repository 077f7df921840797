"""Which compute runs the stages, by ``$R2V_COMPUTE``, and the Dagster pool that they share."""

from __future__ import annotations

import os

from r2v_core.errors import R2VError, nearest

VARIABLE = "R2V_COMPUTE"
CHOICES = ("local", "slurm")


def chosen_compute() -> str:
    """``$R2V_COMPUTE``: where stages run, 'local' unless set.

    Raises:
        R2VError: for another word.
    """
    choice = os.environ.get(VARIABLE) or "local"
    if choice not in CHOICES:
        raise R2VError(f"{VARIABLE}={choice}: stages run 'local' or on 'slurm'.{nearest(choice, CHOICES)}")
    return choice


def pool_name(choice: str | None = None) -> str:
    """Dagster's pool of all stages: limits how many runs are at work at once (dagster_home/dagster.yaml)."""
    return f"r2v_{choice or chosen_compute()}"
