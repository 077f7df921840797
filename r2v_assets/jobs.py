"""Jobs: the pipeline, and everything. Each partition runs under its own experiment's configuration."""

from __future__ import annotations

import dagster as dg

ABLATIONS = dg.AssetSelection.groups("ablation")


def stage_run_config(assets: list[str], settings: dict[str, object]) -> dict[str, object]:
    """Run config that gives the same stage settings to each of these assets."""
    return {"ops": {asset: {"config": settings} for asset in assets}}


JOBS = [
    dg.define_asset_job(
        "mrp",
        selection=dg.AssetSelection.all() - ABLATIONS,
        description="The minimal reproducible pipeline: every asset but the ablations, with the experiment's own "
        "configuration (configs/experiments.yaml)",
    ),
    dg.define_asset_job(
        "full_pipeline",
        selection=dg.AssetSelection.all(),
        description="Every asset with the experiment's own configuration (configs/experiments.yaml)",
    ),
]
