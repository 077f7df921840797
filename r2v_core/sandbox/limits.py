"""What a program in a box may use, and which limit it crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stopped = Literal["time", "memory", "processes", "output"]


@dataclass(frozen=True)
class Limits:
    """What a program may use. Crossing one ends everything it started."""

    wall_s: float = 10.0
    """Seconds from start to end."""
    cpu_s: int = 10
    """Processor seconds of one process."""
    cpus: int = 4
    """Processors that all its processes together may keep busy, where a cgroup limits them."""
    memory_mb: int = 512
    """Memory of all its processes together, files in memory and what the kernel holds for them included; the address
    space of each is four times that."""
    processes: int = 32
    """Processes and threads at a time."""
    disk_mb: int = 32
    """Size of ``/box``, of ``/tmp`` and of ``/dev/shm``, and of one file. These are in memory and count there, too."""
    output_kb: int = 256
    """What is read of standard output and of standard error each."""
