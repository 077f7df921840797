"""What Dagster loads. It assembles; everything is defined elsewhere."""

from __future__ import annotations

import sys

import dagster as dg

from r2v_assets.assets import ASSETS
from r2v_assets.automation import bring_seeds_up_to_date
from r2v_assets.checks import ASSET_CHECKS
from r2v_assets.compute import make_compute
from r2v_assets.jobs import JOBS
from r2v_assets.notify import on_failure
from r2v_assets.partitions import refuse_ranges
from r2v_assets.registry import RegistryResource
from r2v_assets.registry_agreement import AGREEMENT_CHECKS, registry_agreement
from r2v_assets.settings import RunSettings

refuse_ranges(sys.argv[1:])

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=[*ASSET_CHECKS, *AGREEMENT_CHECKS],
    sensors=[registry_agreement, bring_seeds_up_to_date, on_failure],
    jobs=JOBS,
    resources={"compute": make_compute(), "registry": RegistryResource(), "settings": RunSettings()},
    executor=dg.in_process_executor,  # stages share one machine: one at a time
)
