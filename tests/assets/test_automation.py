"""The declared automation: completes begun seeds, reacts to changed inputs, starts nothing by itself."""

from __future__ import annotations

import dagster as dg

from r2v_assets.assets import ASSETS
from r2v_assets.automation import bring_seeds_up_to_date
from r2v_assets.definitions import defs
from r2v_assets.run_config import COMPARISON
from r2v_core.stages.table import BY_ASSET

FIRST, SECOND = "textworld:expert|1", "textworld:expert|2"


def report(instance: dg.DagsterInstance, asset: str, partition: str, version: str) -> None:
    tags = {"dagster/data_version": version}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, tags=tags))


def requested(result: dg.EvaluateAutomationConditionsResult) -> dict[str, set[str]]:
    found = {}
    for asset in BY_ASSET:
        if keys := set(result.get_requested_partitions(dg.AssetKey(asset))):
            found[asset] = keys
    return found


def test_it_is_off_until_switched_on() -> None:
    assert bring_seeds_up_to_date.default_status is dg.DefaultSensorStatus.STOPPED
    graph = defs.resolve_asset_graph()
    without = {
        key.to_user_string() for key in graph.materializable_asset_keys if not graph.get(key).automation_condition
    }
    assert without == {
        "task_suite",
        COMPARISON,
        *(asset for asset, stage in BY_ASSET.items() if stage.group == "ablation"),
    }


def test_a_begun_seed_is_completed_and_a_changed_input_followed() -> None:
    pipeline = dg.Definitions(ASSETS, resources=dict(defs.resources or {}))
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(pipeline, instance)
        assert requested(first) == {}  # nothing was begun
        report(instance, "task_suite", FIRST, "a")
        second = dg.evaluate_automation_conditions(pipeline, instance, cursor=first.cursor)
        everything = {asset for asset, stage in BY_ASSET.items() if stage.inputs and stage.group != "ablation"}
        assert requested(second) == {asset: {FIRST} for asset in everything}
        for asset in everything:
            report(instance, asset, FIRST, "a")
        third = dg.evaluate_automation_conditions(pipeline, instance, cursor=second.cursor)
        assert requested(third) == {}
        report(instance, "task_suite", FIRST, "a")  # made again, with the same content
        fourth = dg.evaluate_automation_conditions(pipeline, instance, cursor=third.cursor)
        assert requested(fourth) == {}
        report(instance, "perturbed_dataset", FIRST, "b")
        fifth = dg.evaluate_automation_conditions(pipeline, instance, cursor=fourth.cursor)
        readers = {asset for asset, stage in BY_ASSET.items() if ("perturbed", "perturb") in stage.inputs}
        assert set(requested(fifth)) == readers or readers < set(requested(fifth))
        assert all(keys == {FIRST} for keys in requested(fifth).values())
