"""Jobs: the demo experiment, and everything."""

from __future__ import annotations

import dagster as dg

ABLATIONS = dg.AssetSelection.groups("ablation")
MRP_CONFIG = "configs/mrp.yaml"


def stage_run_config(assets: list[str], settings: dict[str, object]) -> dict[str, object]:
    """Run config that gives the same stage settings to each of these assets."""
    return {"ops": {asset: {"config": settings} for asset in assets}}


def make_jobs(assets: list[str]) -> list[dg.UnresolvedAssetJobDefinition]:
    """``mrp``: the minimal reproducible pipeline, whatever the partition; ``full_pipeline``: all assets."""
    return [
        dg.define_asset_job(
            "mrp",
            selection=dg.AssetSelection.all() - ABLATIONS,
            description="Every asset but the ablations with the small configuration (configs/mrp.yaml)",
            config=stage_run_config(assets, {"config": MRP_CONFIG}),
        ),
        dg.define_asset_job(
            "full_pipeline",
            selection=dg.AssetSelection.all(),
            description="Every asset with the experiment's own configuration (configs/experiments.yaml)",
        ),
    ]
