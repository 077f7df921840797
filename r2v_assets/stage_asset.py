"""An asset made from a row of the stage table: plan, run on the compute, register, report."""

# no `from __future__ import annotations`: Dagster reads the annotations of config and resources as they are

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg

from r2v_assets.automation import automation_condition
from r2v_assets.checks import refuse_failed_inputs
from r2v_assets.choice import pool_name
from r2v_assets.compute.base import StageCompute
from r2v_assets.dagster_adapter import DATA_VERSION_TAG
from r2v_assets.failure import StageFailure, raise_again, stage_failure
from r2v_assets.inputs import materialised_run, upstream_runs
from r2v_assets.interruption import end_if_cancelled, told_in_one_line
from r2v_assets.metadata import run_metadata
from r2v_assets.ownership import code_references, owners
from r2v_assets.partitions import PARTITIONS, check_partition
from r2v_assets.preflight import MADE_ON_DEMAND, assets_of, refuse_missing_inputs
from r2v_assets.project import root
from r2v_assets.registry import RegistryResource
from r2v_assets.run_config import refuse_unused_config
from r2v_assets.settings import RunSettings, StageConfig
from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.agreement import disagreement
from r2v_core.runs.directories import find_runs
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage
from r2v_core.runs.storage import storage_error
from r2v_core.stages.at_work import AtWorkError, refuse_if_at_work, wait_for
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.merged_inputs import merged_roles
from r2v_core.stages.plan import parse_inputs, plan
from r2v_core.stages.table import STAGES, all_sections


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of one stage."""

    @dg.asset(
        name=stage.asset,
        group_name=stage.group,
        kinds=set(stage.kinds),
        description=f"{stage.title}.\n\nBy hand: `python -m {' '.join(stage.command)} --help`",
        code_version=stage.version,
        partitions_def=PARTITIONS,
        deps=list(dict.fromkeys(STAGES[upstream].asset for _, upstream in stage.inputs)),
        op_tags={"r2v/stage": stage.name},
        pool=pool_name(),
        owners=owners(),
        metadata=code_references(stage),
        automation_condition=automation_condition(stage),
    )
    def asset(
        context: dg.AssetExecutionContext,
        config: StageConfig,
        settings: RunSettings,
        compute: StageCompute,
        registry: RegistryResource,
    ) -> dg.MaterializeResult:
        try:
            end_if_cancelled(context)
            refuse_unused_config(context.run)
            partition = check_partition(context.partition_key)
            chosen = config.within(settings)
            loaded = partition_config(partition, chosen.config, chosen.overrides, root())
            work = Work(context, partition, loaded, chosen, compute, registry)
            refuse_missing_inputs(context.instance, context.run.run_config, assets_of(context.run), partition)
            if any(upstream == MADE_ON_DEMAND for _, upstream in stage.inputs):
                work.make_task_suite()
            refuse_failed_inputs(context.instance, stage, partition.key)
            manifest, run_dir = work.run(stage, chosen)
        except R2VError as error:
            raise_again(stage_failure(error), context.retry_number)
        except StageFailure as failure:
            raise_again(failure, context.retry_number)
        except OSError as error:
            if (told := storage_error(error)) is None:
                raise
            raise_again(stage_failure(told), context.retry_number)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(manifest.digest), metadata=run_metadata(manifest, run_dir)
        )

    return asset


@dataclass(frozen=True)
class Work:
    """What one materialisation has at hand."""

    context: dg.AssetExecutionContext
    partition: Partition
    loaded: LoadedConfig
    config: StageConfig
    compute: StageCompute
    registry: RegistryResource

    def run(self, stage: Stage, own: StageConfig | None = None) -> tuple[RunManifest, Path]:
        """Plan a stage, run it, and register the run however it ended.

        Args:
            own: what is said about this very stage; None for one that is made on the way.
        """
        resume = self.config.resume or self.context.retry_number > 0  # a retry goes on with what the first try has
        given = parse_inputs(stage.name, own.inputs if own else [])
        others = [*merged_roles(stage, self.loaded.config), *given]
        known = upstream_runs(self.context.instance, stage, self.partition.key, others)
        spec = plan(
            stage.name,
            self.partition,
            self.loaded,
            project=root(),
            overrides=self.config.overrides,
            inputs={role: root() / path for role, path in given.items()},
            known=known,
            run_id=(own.run_id or None) if own else None,
            resume=resume,
            extend=(own.extend or None) if own else None,
            tags=self.config.tags,
            notes=self.config.notes,
        )
        if resume:
            spec = self.compute.adopt(self.context, spec)
        try:
            refuse_if_at_work(spec)
        except AtWorkError as other:
            if not self.config.wait:
                raise
            if wait_for(other.run, self.context.log.info, partial(end_if_cancelled, self.context)).status != "done":
                return self.run(stage, own)
            return read_manifest(other.run.directory), other.run.directory
        try:
            with told_in_one_line(self.context, spec):
                return self.compute.run(self.context, spec, own.resources() if own else {}), Path(spec.run_dir)
        finally:
            self.registry.register_with_inputs(spec.run_dir, self.context.log)

    def make_task_suite(self) -> None:
        """Make the partition's task suite in place, if neither Dagster nor the disk has one."""
        stage = STAGES[MADE_ON_DEMAND]
        sections = all_sections(stage, self.loaded.config)
        key, paths = self.partition.key, self.loaded.config.paths
        runs = find_runs(root(), paths, stage, self.partition.experiment, self.partition.seed)
        if (known := materialised_run(self.context.instance, stage.asset, key)) is not None:
            runs.append(UpstreamRun(known, read_manifest(known)))
        if any(disagreement(sections, self.loaded, run.manifest) is None for run in runs):
            return
        self.context.log.info(f"{key} has no {stage.asset} yet; making it first")
        manifest, run_dir = self.run(stage)
        self.context.log_event(
            dg.AssetMaterialization(
                stage.asset,
                partition=key,
                metadata=run_metadata(manifest, run_dir),
                tags={DATA_VERSION_TAG: manifest.digest},
            )
        )
