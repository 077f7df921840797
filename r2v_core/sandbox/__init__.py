"""Running code that a model wrote, without letting it at this machine."""

from __future__ import annotations

from r2v_core.sandbox.cgroups import control
from r2v_core.sandbox.isolation import BACKENDS, find_backend
from r2v_core.sandbox.limits import Limits
from r2v_core.sandbox.run import SandboxResult, boxes_end_with, in_force, run

__all__ = ["BACKENDS", "Limits", "SandboxResult", "boxes_end_with", "control", "find_backend", "in_force", "run"]
