"""What a Dagster run was told, against what it was asked to make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg

from r2v_assets.dagster_adapter import BACKFILL_TAG
from r2v_core.errors import R2VError, nearest
from r2v_core.stages.table import BY_ASSET

COMPARISON = "variant_comparison"
"""The asset that is no stage."""
RESOURCES = ("compute", "io_manager", "registry", "settings")


def selected(run: dg.DagsterRun) -> list[str]:
    """The assets that a run makes; none are named for a job as a whole, which lacks nothing."""
    return sorted(key.to_user_string() for key in run.asset_selection or ())


def refuse_unknown_assets(names: Iterable[str]) -> None:
    """Refuse settings for what is no asset.

    Raises:
        R2VError: naming the key.
    """
    for name in names:
        if name not in BY_ASSET and name != COMPARISON:
            raise R2VError(f"run config: ops.{name}: there is no such asset.{nearest(name, [*BY_ASSET, COMPARISON])}")


def refuse_unused_config(run: dg.DagsterRun) -> None:
    """Stop before work if settings are meant for an asset that this run does not make.

    Dagster drops such settings without a word where assets are materialised without a job (``dagster asset
    materialize``, ``dg launch --assets``, *Materialize* in the UI); hours of training would begin with the defaults.
    The runs of a backfill and re-executions may make only a part of what their settings are for.

    Raises:
        R2VError: naming the key.
    """
    chosen = selected(run)
    for name in dict(run.run_config).get("resources") or ():  # type: ignore[attr-defined]
        if name not in RESOURCES:
            raise R2VError(f"run config: resources.{name}: there is no such resource.{nearest(name, RESOURCES)}")
    given: Mapping[str, object] = dict(run.run_config).get("ops") or {}  # type: ignore[assignment]
    if not chosen:
        return  # a job as a whole; Dagster compares its config with its assets itself
    refuse_unknown_assets(given)
    for name in given:
        if name not in chosen and BACKFILL_TAG not in run.tags and run.parent_run_id is None:
            raise R2VError(
                f"run config: ops.{name}: this run makes {', '.join(chosen)} and would drop these settings; "
                f"select {name} too, or leave them out"
            )
