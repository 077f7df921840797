"""Runs that were made without Dagster, under another instance, or before the checkout was moved: told to Dagster."""

from __future__ import annotations

import dagster as dg

from r2v_assets import registry_agreement
from r2v_assets.checks import CHECKS, find
from r2v_assets.dagster_adapter import DATA_VERSION_TAG, report_check
from r2v_assets.inputs import materialised_run, recorded_directory
from r2v_assets.metadata import run_metadata
from r2v_assets.registry import RegistryResource
from r2v_core.errors import R2VError
from r2v_core.runs.spec import UpstreamRun


def report_run(instance: dg.DagsterInstance, asset: str, partition: str, run: UpstreamRun) -> bool:
    """Report a finished run as the materialisation of its partition, with its checks, unless Dagster knows it here.

    Returns:
        whether it had to be reported.
    """
    if recorded_directory(instance, asset, partition) == run.directory.resolve():
        return False
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset,
            partition=partition,
            metadata=run_metadata(run.manifest, run.directory),
            tags={DATA_VERSION_TAG: run.manifest.digest},
        )
    )
    suite = materialised_run(instance, "task_suite", partition)
    for of, name, severity in CHECKS:
        if of != asset:
            continue
        try:
            found = find(name, run.directory, suite)
        except R2VError:
            continue  # what it compares with is gone; the check stays "not evaluated"
        report_check(instance, asset, name, partition, found.passed, severity, found.message, found.facts)
    registry = RegistryResource()
    try:
        registry.open().register(run.directory)
        known = list(registry_agreement.newest(instance, asset))
        wrong = registry_agreement.problems(known, registry)
    except R2VError:
        return True  # no registry to agree with; the sensor looks again
    report_check(
        instance,
        asset,
        registry_agreement.CHECK,
        partition,
        not wrong,
        dg.AssetCheckSeverity.ERROR,
        registry_agreement.describe(len(known), wrong),
        {"partitions": len(known), "lost": len(wrong)},
    )
    return True
