"""What Dagster loads. It assembles; everything is defined elsewhere."""

from __future__ import annotations

import sys

import dagster as dg

from r2v_assets.assets import ASSETS
from r2v_assets.automation import bring_seeds_up_to_date
from r2v_assets.checks import ASSET_CHECKS
from r2v_assets.command_line import check_command_line
from r2v_assets.comparison import variant_comparison
from r2v_assets.compute import make_compute
from r2v_assets.dagster_adapter import shield_log_copies
from r2v_assets.executor import executor
from r2v_assets.jobs import JOBS
from r2v_assets.notify import on_failure
from r2v_assets.registry import RegistryResource
from r2v_assets.registry_agreement import AGREEMENT_CHECKS, registry_agreement
from r2v_assets.settings import RunSettings

shield_log_copies()

defs = dg.Definitions(
    assets=[*ASSETS, variant_comparison],
    asset_checks=[*ASSET_CHECKS, *AGREEMENT_CHECKS],
    sensors=[registry_agreement, bring_seeds_up_to_date, on_failure],
    jobs=JOBS,
    resources={"compute": make_compute(), "registry": RegistryResource(), "settings": RunSettings()},
    executor=executor(),
)

check_command_line(sys.argv[1:], defs)
