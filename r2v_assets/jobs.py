"""Jobs: the pipeline, everything, each asset by itself. A partition runs under its own experiment's configuration."""

from __future__ import annotations

import dagster as dg

from r2v_assets.run_config import COMPARISON
from r2v_core.stages.table import BY_ASSET

ABLATIONS = dg.AssetSelection.groups("ablation")
PARTITIONED = dg.AssetSelection.all() - dg.AssetSelection.assets(COMPARISON)


def job_name(asset: str) -> str:
    """The job of one asset. Its runs have a row of their own in the timeline, and a shell can ask for its backfill."""
    return f"{asset}_job"


def stage_run_config(assets: list[str], settings: dict[str, object]) -> dict[str, object]:
    """Run config that gives the same stage settings to each of these assets."""
    return {"ops": {asset: {"config": settings} for asset in assets}}


JOBS = [
    dg.define_asset_job(
        "mrp",
        selection=PARTITIONED - ABLATIONS,
        description="The minimal reproducible pipeline: every asset but the ablations, with the experiment's own "
        "configuration (configs/experiments.yaml)",
    ),
    dg.define_asset_job(
        "full_pipeline",
        selection=PARTITIONED,
        description="Every asset of a partition with the experiment's own configuration (configs/experiments.yaml)",
    ),
    *(
        dg.define_asset_job(job_name(asset), selection=[asset], description=f"{asset} alone: {stage.title}")
        for asset, stage in BY_ASSET.items()
    ),
]
