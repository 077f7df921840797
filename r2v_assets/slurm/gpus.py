"""Whether a job's torch sees the GPUs that SLURM gave it."""

from __future__ import annotations

from r2v_core.errors import R2VError

GPUS = """
from glob import glob
import torch
print(len(glob("/dev/nvidia[0-9]*") + glob("/dev/kfd")), torch.cuda.device_count(), torch.version.cuda or "cpu")
"""
"""Run on the node: its GPU devices, those that torch sees, and the CUDA version that torch is built for."""


def gpus_seen(line: str, node: str, asked: int) -> str:
    """What the job's torch sees of its GPUs, from the line that :data:`GPUS` prints.

    Raises:
        R2VError: if the node has GPUs, and torch sees fewer than were asked for.
    """
    if not asked:
        return ""
    devices, seen, build = line.split()
    if devices == "0":
        return f"; {node} has no GPU device, so torch.cuda was not tried"
    if int(seen) < asked:
        built = f"is built for CUDA {build}: does the node's driver support it?"
        why = "is a build for CPUs." if build == "cpu" else built
        raise R2VError(
            f"torch sees {seen} of the {asked} GPUs that SLURM gave the job on {node}; the environment's torch {why} "
            "Install one that fits the driver (nvidia-smi on the node names its CUDA version), then: r2v slurm deploy"
        )
    return f", torch sees {seen} GPU{'s' if seen != '1' else ''} (CUDA {build})"
