"""Which compute runs the stages, by ``$R2V_COMPUTE``, how many of a run at once, and the pool that all runs share."""

from __future__ import annotations

import os

from r2v_core.errors import R2VError, nearest

VARIABLE = "R2V_COMPUTE"
CHOICES = ("local", "slurm")
AT_ONCE = "R2V_STAGES_AT_ONCE"
DEFAULT_AT_ONCE = {"local": 1, "slurm": 8}
"""One machine does one thing after the other; on a cluster each stage is a job."""


def chosen_compute() -> str:
    """``$R2V_COMPUTE``: where stages run, 'local' unless set.

    Raises:
        R2VError: for another word.
    """
    choice = os.environ.get(VARIABLE) or "local"
    if choice not in CHOICES:
        raise R2VError(f"{VARIABLE}={choice}: stages run 'local' or on 'slurm'.{nearest(choice, CHOICES)}")
    return choice


def stages_at_once() -> int:
    """``$R2V_STAGES_AT_ONCE``: how many stages of a run that do not depend on each other run at the same time.

    Raises:
        R2VError: for anything but an integer of 1 or more.
    """
    given = os.environ.get(AT_ONCE)
    if not given:
        return DEFAULT_AT_ONCE[chosen_compute()]
    if not given.isdecimal() or int(given) < 1:
        raise R2VError(f"{AT_ONCE}={given}: expected an integer of 1 or more, such as 4")
    return int(given)


def pool_name(choice: str | None = None) -> str:
    """Dagster's pool of all stages: limits how many runs are at work at once (dagster_home/dagster.yaml)."""
    return f"r2v_{choice or chosen_compute()}"
