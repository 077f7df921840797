"""The run registry: a DuckDB index over run manifests and data, for lineage, merges and SQL."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r2v_core.registry.api import DataRegistry
    from r2v_core.registry.queries import RunRow, Runs
    from r2v_core.registry.store import TrajectoryStore

__all__ = ["DataRegistry", "RunRow", "Runs", "TrajectoryStore"]

_HOMES = {"DataRegistry": "api", "RunRow": "queries", "Runs": "queries", "TrajectoryStore": "store"}


def __getattr__(name: str) -> Any:
    """DuckDB is loaded with the first use: commands that need torch instead should not load both."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
