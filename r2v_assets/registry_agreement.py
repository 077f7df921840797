"""Do Dagster's materialisations, the registry and the files still agree? A check on every asset, and a sensor.

The check runs with its asset. Files are deleted later, though, and runs are made by hand or while Dagster is down: the
sensor looks every minute, registers what it finds on disk, and reports the check anew where its verdict changed.

A verdict is about all partitions of an asset, so that no partition's success hides another one's loss.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of checks and sensors as they are

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from r2v_assets.registry import RegistryResource
from r2v_core.errors import R2VError
from r2v_core.stages.table import BY_ASSET

CHECK = "run_intact"
EVERY_S = 60
RECENT = 1000
"""Materialisations of an asset that are looked back over to find the newest one of each partition."""


@dataclass(frozen=True)
class Materialised:
    """The run that an asset's newest materialisation of a partition stands for."""

    partition: str
    run_id: str
    digest: str


def newest(instance: dg.DagsterInstance, asset: str) -> Iterator[Materialised]:
    """The newest materialisation of each partition of an asset."""
    seen = set()
    for record in instance.fetch_materializations(dg.AssetKey(asset), limit=RECENT).records:
        event = record.asset_materialization
        if event is None or event.partition is None or event.partition in seen or "run_id" not in event.metadata:
            continue
        seen.add(event.partition)
        yield Materialised(event.partition, *(str(event.metadata[name].value) for name in ("run_id", "digest")))


def problems(found: Sequence[Materialised], registry: RegistryResource) -> list[str]:
    """One line a materialisation whose run is not what it was.

    Raises:
        R2VError: if the registry can't be read.
    """
    wrong = registry.open().run_problems({one.run_id: one.digest for one in found})
    return [f"{one.partition}, {one.run_id}: {'; '.join(wrong[one.run_id])}" for one in found if wrong[one.run_id]]


def describe(n: int, wrong: Sequence[str]) -> str:
    """The check's verdict in words."""
    if wrong:
        return f"{len(wrong)} of {n} partitions lost their run; materialise them again. " + ". ".join(wrong)
    return f"{n} partitions: their runs are registered with Dagster's data versions, and all files are there"


def make_check(asset: str) -> dg.AssetChecksDefinition:
    """The check of one asset."""

    @dg.asset_check(
        asset=asset,
        name=CHECK,
        description="The registry has every partition's materialised run with the same digest, and no file is missing.",
    )
    def check(context: dg.AssetCheckExecutionContext, registry: RegistryResource) -> dg.AssetCheckResult:
        found = list(newest(context.instance, asset))
        try:
            wrong = problems(found, registry)
        except R2VError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        return dg.AssetCheckResult(
            passed=not wrong,
            description=describe(len(found), wrong),
            metadata={"partitions": len(found), "lost": len(wrong)},
        )

    return check


AGREEMENT_CHECKS = [make_check(asset) for asset in BY_ASSET]


@dg.sensor(
    minimum_interval_seconds=EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers runs found on disk; reports materialisations whose run is unknown, changed or deleted.",
)
def registry_agreement(context: dg.SensorEvaluationContext, registry: RegistryResource) -> dg.SensorResult:
    """One look. The cursor holds what is wrong so far (asset → problems), so that only changes are reported."""
    before: dict[str, list[str]] = json.loads(context.cursor or "{}")
    wrong: dict[str, list[str]] = {}
    events = []
    try:
        report = registry.open().sync()
        for asset in BY_ASSET:
            found = list(newest(context.instance, asset))
            if lost := problems(found, registry):
                wrong[asset] = lost
            if lost != before.get(asset, []):
                events.append(
                    dg.AssetCheckEvaluation(
                        asset_key=dg.AssetKey(asset),
                        check_name=CHECK,
                        passed=not lost,
                        description=describe(len(found), lost),
                        metadata={"partitions": len(found), "lost": len(lost)},
                    )
                )
    except R2VError as error:
        return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
    for problem in report.problems:
        context.log.warning(f"not registered: {problem}")
    told = f"{len(report.registered)} runs registered; assets that lost runs: {', '.join(wrong) or 'none'}"
    return dg.SensorResult(asset_events=events, cursor=json.dumps(wrong), skip_reason=None if events else told)
