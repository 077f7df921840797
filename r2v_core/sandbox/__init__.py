"""Running code that a model wrote, without letting it at this machine."""

from __future__ import annotations

from r2v_core.sandbox.isolation import BACKENDS, find_backend
from r2v_core.sandbox.run import Ended, Limits, run

__all__ = ["BACKENDS", "Ended", "Limits", "find_backend", "run"]
