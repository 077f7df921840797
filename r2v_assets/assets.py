"""The assets: one of each stage. What each one is stands in the stage table, what it does in the stage's module."""

from __future__ import annotations

from r2v_assets.stage_asset import stage_asset
from r2v_core.stages.table import BY_ASSET

ASSETS = [stage_asset(stage) for stage in BY_ASSET.values()]
