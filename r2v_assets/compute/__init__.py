"""Where stages run. Assets see :class:`r2v_assets.compute.base.StageCompute` and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2v_assets.choice import chosen_compute

if TYPE_CHECKING:
    from r2v_assets.compute.base import StageCompute


def make_compute() -> StageCompute:
    """The compute that ``$R2V_COMPUTE`` chooses; libraries of the other one are not loaded."""
    if chosen_compute() == "slurm":
        from r2v_assets.compute.slurm import SlurmCompute

        return SlurmCompute(profile=None, echo=False)
    from r2v_assets.compute.local import LocalCompute

    return LocalCompute(echo=False, grace_s=30.0)
