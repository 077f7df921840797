"""Filters of a query that can't be meant: values that no run has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from r2v_core.errors import R2VError, nearest
from r2v_core.runs.manifest import Status

if TYPE_CHECKING:
    from r2v_core.registry.api import DataRegistry


def refuse_unknown_values(registry: DataRegistry, wanted: Mapping[str, Any]) -> None:
    """Refuse a value that no run of the registry has, where the query found nothing.

    Args:
        wanted: column of ``runs`` → value, None where any will do.

    Raises:
        R2VError: naming the option and what there is. An empty registry knows no values and refuses none, and each
            status is one, whether a run has it or not.
    """
    for column, value in wanted.items():
        if value is None:
            continue
        known = (
            set(get_args(Status))
            if column == "status"
            else set(registry.sql(f"SELECT DISTINCT {column} FROM runs")[column])
        )
        if known and value not in known:
            raise R2VError(f"--{column} {value}: no run has it.{nearest(str(value), map(str, known))}")
