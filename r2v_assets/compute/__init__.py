"""Where stages run. Assets see :class:`r2v_assets.compute.base.StageCompute` and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from r2v_core.errors import R2VError, nearest

if TYPE_CHECKING:
    from r2v_assets.compute.base import StageCompute

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


def make_compute() -> StageCompute:
    """The compute that ``$R2V_COMPUTE`` chooses; libraries of the other one are not loaded."""
    if chosen_compute() == "slurm":
        from r2v_assets.compute.slurm import SlurmCompute

        return SlurmCompute(profile=None, echo=False)
    from r2v_assets.compute.local import LocalCompute

    return LocalCompute(echo=False, grace_s=30.0)


def pool_name(choice: str | None = None) -> str:
    """Dagster's pool of all stages: limits how many runs are at work at once (dagster_home/dagster.yaml)."""
    return f"r2v_{choice or chosen_compute()}"
