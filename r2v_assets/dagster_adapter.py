"""What is used of Dagster beyond its public interface. No other module imports ``dagster._…`` or ``dagster_shared``.

Checked with Dagster 1.13 (``CHECKED``, the range of pyproject.toml). tests/assets/test_dagster_adapter.py says for each
part what no longer holds after an upgrade.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.errors import DagsterUserCodeProcessError
from dagster._core.execution import compute_logs
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster_shared.error import SerializableErrorInfo

CHECKED = ">=1.13,<1.14"
DATA_VERSION_TAG = "dagster/data_version"
BACKFILL_TAG = "dagster/backfill"
REPOSITORY = "__repository__"
"""Dagster's name for the definitions of a module."""
HISTORY = 500
"""Evaluations of a check that are looked back over; all partitions share them."""


class ElsewhereError(DagsterUserCodeProcessError):
    """An error that happened in another process. Dagster shows such an error as it is given here, without a trace."""

    def __init__(self, message: str) -> None:
        shown = SerializableErrorInfo(message=message + "\n", stack=[], cls_name="StageFailure")
        super().__init__(message, user_code_process_error_infos=[shown])


class StoppedElsewhere(DagsterUserCodeProcessError, dg.DagsterExecutionInterruptedError):
    """An interruption that Dagster shows as the line given here, without a trace."""

    def __init__(self, message: str) -> None:
        shown = SerializableErrorInfo(message=message + "\n", stack=[], cls_name="Stopped")
        super().__init__(message, user_code_process_error_infos=[shown])


def shield_log_copies() -> None:
    """Start the helpers that copy a step's output to the terminal so that a terminal's Ctrl-C does not reach them.

    They end with the step anyway; at Ctrl-C they would print tracebacks of their own.
    """
    original = compute_logs.execute_posix_tail
    if getattr(original, "shielded", False):
        return

    @contextmanager
    def shielded(path: str, stream: Any) -> Iterator[Any]:
        with ExitStack() as stack:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits what is blocked
            try:
                processes = stack.enter_context(original(path, stream))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield processes

    shielded.shielded = True  # type: ignore[attr-defined]
    compute_logs.execute_posix_tail = shielded


def materialize_here(
    job: dg.JobDefinition,
    asset: str,
    instance: dg.DagsterInstance,
    workspace: Path,
    *,
    partition_key: str,
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> dg.ExecuteInProcessResult:
    """Materialise one asset of a job in this process, as the UI would launch it.

    The run says which code location of ``workspace`` (a YAML file) it belongs to, so that the UI's timeline shows it
    and re-executes it; runs without that are left out there.
    """
    if workspace.is_file():
        location = location_origins_from_yaml_paths([str(workspace)])[0]
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, REPOSITORY), job.name)
        create = instance.create_run_for_job
        instance.create_run_for_job = partial(create, remote_job_origin=origin)  # type: ignore[method-assign]
    try:
        return job.execute_in_process(
            instance=instance,
            partition_key=partition_key,
            asset_selection=[dg.AssetKey(asset)],
            run_config=dict(run_config),
            tags=dict(tags),
            raise_on_error=False,
        )
    finally:
        vars(instance).pop("create_run_for_job", None)


def interrupted(event: dg.DagsterEvent) -> bool:
    """Whether a step failed because somebody stopped it."""
    source = event.step_failure_data.error_source
    return source is not None and source.value == "INTERRUPT"


def failed_checks(instance: dg.DagsterInstance, asset: str, checks: list[str], partition: str) -> dict[str, str]:
    """Check → what it said, for those that failed on the newest materialisation of a partition.

    Checks carry their partition as metadata ``partition``.
    """
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    newest = instance.fetch_materializations(wanted, limit=1).records
    if not newest:
        return {}
    failed = {}
    for name in checks:
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=HISTORY):
            event = record.event.dagster_event if record.event else None
            found = event.event_specific_data if event else None
            if not isinstance(found, dg.AssetCheckEvaluation):
                continue
            target = found.target_materialization_data
            if target is None or target.storage_id != newest[0].storage_id:
                continue
            if not found.passed:
                failed[name] = found.description or "no reason given"
            break  # the newest verdict counts
    return failed


def report_check(
    instance: dg.DagsterInstance,
    asset: str,
    check: str,
    partition: str,
    passed: bool,
    severity: dg.AssetCheckSeverity,
    description: str,
    facts: Mapping[str, float],
) -> None:
    """Report the verdict of a check on the newest materialisation of a partition, made outside of a Dagster run."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    (newest,) = instance.fetch_materializations(wanted, limit=1).records
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=newest.storage_id, run_id=newest.run_id, timestamp=newest.timestamp
    )
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(asset),
            check_name=check,
            passed=passed,
            severity=severity,
            description=description,
            metadata={"partition": partition, **facts},
            target_materialization_data=target,
        )
    )
