"""Asset checks: r2v_core's findings on the run that was just materialised."""

# no `from __future__ import annotations`: Dagster reads the annotations of check functions as they are

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from r2v_assets.dagster_adapter import failed_checks
from r2v_assets.inputs import materialised_run
from r2v_assets.project import root
from r2v_core.config.schema import PathsConfig
from r2v_core.errors import R2VError
from r2v_core.runs.directories import find_runs
from r2v_core.runs.fingerprint import BASE
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage
from r2v_core.stages.table import STAGES, get_stage

if TYPE_CHECKING:
    from r2v_core.stages.checks import Finding

BLOCKING = frozenset({"no_template_leakage", "trained_on_train_split", "traces_complete", "table_matches_traces"})
"""Checks of validity: results made from a run that fails one would be wrong, so nothing downstream starts from it."""

CHECKS: tuple[tuple[str, str, dg.AssetCheckSeverity], ...] = (
    ("task_suite", "no_template_leakage", dg.AssetCheckSeverity.ERROR),
    ("trajectory_run", "no_duplicate_trajectories", dg.AssetCheckSeverity.WARN),
    ("trajectory_run", "teacher_succeeds", dg.AssetCheckSeverity.ERROR),
    ("bc_policy", "trained_on_train_split", dg.AssetCheckSeverity.ERROR),
    ("verifier", "trained_on_train_split", dg.AssetCheckSeverity.ERROR),
    ("verifier", "verifier_labels_balanced", dg.AssetCheckSeverity.ERROR),
    ("router", "router_not_degenerate", dg.AssetCheckSeverity.ERROR),
    ("evaluation_clean", "traces_complete", dg.AssetCheckSeverity.ERROR),
    ("evaluation_noisy", "traces_complete", dg.AssetCheckSeverity.ERROR),
    ("result_tables", "table_matches_traces", dg.AssetCheckSeverity.ERROR),
)
"""(asset, function of :mod:`r2v_core.stages.checks`, severity of a finding against it)."""

DESCRIPTIONS = {
    "no_template_leakage": "No task template, and no task content, is in two splits.",
    "no_duplicate_trajectories": "No two episodes of one task have the same actions.",
    "teacher_succeeds": "Where the teacher plays from the start, it wins at least 90 %.",
    "trained_on_train_split": "No training episode is of a template that the partition's task suite holds out.",
    "verifier_labels_balanced": "Both classes of both heads make up at least 5 % of the labels.",
    "router_not_degenerate": "The router is neither constant nor the entropy rule under another name.",
    "traces_complete": "Each method × task × seed of the recorded design is there, traced; errors count as failed.",
    "table_matches_traces": "Success rates of the main table, recounted from the step traces.",
}


def make_check(asset: str, name: str, severity: dg.AssetCheckSeverity) -> dg.AssetChecksDefinition:
    """The check of one asset; reads the run of the partition that the present Dagster run is about."""

    @dg.asset_check(asset=asset, name=name, description=DESCRIPTIONS[name], blocking=name in BLOCKING)
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        if not context.has_partition_key:
            raise dg.Failure("checks look at one partition; run them by materialising it", allow_retries=False)
        directory = materialised_run(context.instance, asset, context.partition_key)
        if directory is None:
            raise dg.Failure(
                f"{asset} of {context.partition_key} has no run on disk; materialise it", allow_retries=False
            )
        try:
            found = find(name, directory, materialised_run(context.instance, "task_suite", context.partition_key))
        except R2VError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return dg.AssetCheckResult(
            passed=found.passed,
            severity=severity,
            description=found.message,
            metadata={"partition": context.partition_key, **found.facts},
        )

    return check


def find(name: str, directory: Path, suite: Path | None) -> "Finding":
    """What a check finds about a run.

    Args:
        suite: the partition's task suite, where Dagster knows one.

    Raises:
        R2VError: if files that it compares with are gone.
    """
    from r2v_core.stages import checks  # pandas and pyarrow come with it: only when a check runs

    run = UpstreamRun(directory, read_manifest(directory))
    if name == "table_matches_traces":
        paths = {item.role: root() / item.path for item in run.manifest.inputs if item.role in ("clean", "noisy")}
        evaluations = {role: UpstreamRun(path, read_manifest(path)) for role, path in paths.items()}
        return checks.table_matches_traces(run, evaluations)
    if name == "trained_on_train_split":
        return checks.trained_on_train_split(run, learnt_from(run), _suite(run, suite))
    if name == "traces_complete":
        played = next(root() / item.path for item in run.manifest.inputs if item.role == "tasks")
        return checks.traces_complete(run, UpstreamRun(played, read_manifest(played)))
    function: Callable[[UpstreamRun], checks.Finding] = getattr(checks, name)
    return function(run)


def learnt_from(run: UpstreamRun) -> dict[str, UpstreamRun]:
    """The runs of episodes that a training read, and those that the trainings which it builds on read."""
    data: dict[str, UpstreamRun] = {}
    for item in run.manifest.inputs:
        directory = root() / item.path
        upstream = UpstreamRun(directory, read_manifest(directory))
        data |= learnt_from(upstream) if item.role == BASE else {f"{item.role} {item.run_id}": upstream}
    return data


def _suite(run: UpstreamRun, materialised: Path | None) -> UpstreamRun:
    """The task suite of a run's partition: what Dagster knows, else the newest on disk."""
    if materialised is not None:
        return UpstreamRun(materialised, read_manifest(materialised))
    manifest = run.manifest
    paths = PathsConfig.model_validate(manifest.config["paths"])
    found = find_runs(root(), paths, get_stage("task_suite"), manifest.partition.split("|")[0], manifest.seed)
    if not found:
        raise R2VError(f"no task suite of {manifest.partition} on disk to compare with; materialise task_suite")
    return found[0]


def refuse_failed_inputs(instance: dg.DagsterInstance, stage: Stage, partition: str) -> None:
    """Stop before work that would build on an input which failed a blocking check in an earlier Dagster run.

    Within one run Dagster itself skips what is downstream of a failed blocking check.

    Raises:
        R2VError: naming the input, the check, and what to do.
    """
    for upstream in {STAGES[name].asset for _, name in stage.inputs}:
        blocking = [name for asset, name, _ in CHECKS if asset == upstream and name in BLOCKING]
        for check, said in failed_checks(instance, upstream, blocking, partition).items():
            raise R2VError(
                f"{upstream} of {partition} failed its check '{check}' ({said}), so '{stage.asset}' does not start "
                f"from it; fix the cause and materialise {upstream} again"
            )


ASSET_CHECKS = [make_check(*row) for row in CHECKS]
