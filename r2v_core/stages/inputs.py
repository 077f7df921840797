"""Which upstream runs a stage reads.

Runs that are named (``--input``) are read. For every other role, of the finished runs of the partition that agree with
the configuration (:mod:`r2v_core.runs.agreement`), the newest one *whose fingerprint is today's* is taken: the one that
the upstream stage would make now, from its own inputs of today. A try with other settings thus never takes the place of
what the configuration describes. Where no run has today's fingerprint, the newest is taken, and a warning says so.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.agreement import disagreement
from r2v_core.runs.directories import find_runs, relative_to, runs_folder
from r2v_core.runs.fingerprint import is_made_of
from r2v_core.runs.manifest import IMPORT, MERGE, RunInput, RunManifest, read_manifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage
from r2v_core.stages.file_inputs import imported_run
from r2v_core.stages.merged_inputs import merged_inputs, merged_roles
from r2v_core.stages.table import STAGES, all_sections, inputs_of
from r2v_core.teachers import teacher_identity

log = logging.getLogger(__name__)


def find_inputs(
    stage: Stage,
    loaded: LoadedConfig,
    partition: Partition,
    project: Path,
    given: Mapping[str, Path],
    known: Mapping[str, Path] | None = None,
) -> list[RunInput]:
    """The upstream runs of a stage: those given by role, the merges that ``data.merge`` names (made where they are
    new), else those that are found.

    Args:
        stage: what is planned.
        loaded: today's configuration.
        partition: whose runs are looked for.
        project: the project's root.
        given: role → run directory, named by the user.
        known: role → run directory that an orchestrator knows of, wherever it lies; one candidate more.

    Raises:
        R2VError: naming the missing input and the two commands that make it, an unknown role, or a run that was made
            under another configuration.
    """
    return _Search(loaded, partition, project).inputs(stage, given, known or {})


def check_inputs(
    stage: Stage,
    loaded: LoadedConfig,
    partition: Partition,
    project: Path,
    leave_out: Collection[str],
    known: Mapping[str, Path] | None = None,
) -> None:
    """See that there is a run to read for every role of a stage but those that are left out.

    Raises:
        R2VError: as :func:`find_inputs`, for the first role without one.
    """
    search = _Search(loaded, partition, project)
    for role, upstream in inputs_of(stage, loaded.config):
        if role not in leave_out:
            search.agreeing(stage, STAGES[upstream], (known or {}).get(role))


class _Search:
    """One search; what was found for a stage is remembered, as several roles lead to the same upstream."""

    def __init__(self, loaded: LoadedConfig, partition: Partition, project: Path) -> None:
        self.loaded, self.partition, self.project = loaded, partition, project
        self._chosen: dict[str, UpstreamRun] = {}

    def inputs(self, stage: Stage, given: Mapping[str, Path], known: Mapping[str, Path]) -> list[RunInput]:
        wanted = inputs_of(stage, self.loaded.config)
        roles = [role for role, _ in wanted]
        for role in given:
            if role not in roles:
                if upstream := dict(stage.inputs).get(role):
                    raise R2VError(f"--input {role}=… is read only where {STAGES[upstream].switch} is above 0; set it")
                raise R2VError(f"stage '{stage.name}' has no input '{role}'; its inputs: {', '.join(roles) or 'none'}")
        merged = merged_roles(stage, self.loaded.config)
        if twice := [role for role in merged if role in given]:
            raise R2VError(
                f"both data.merge and --input {twice[0]}=… say what '{stage.name}' learns from; give one of them"
            )
        if merged:
            given = {**given, **self._merges(stage)}
        runs = {
            role: self._named(role, upstream, given[role])
            if role in given
            else self._found(stage, STAGES[upstream], known.get(role))
            for role, upstream in wanted
        }
        return [
            RunInput(
                role=role,
                run_id=run.manifest.run_id,
                digest=run.manifest.digest,
                path=relative_to(run.directory, self.project),
            )
            for role, run in runs.items()
        ]

    def _merges(self, stage: Stage) -> dict[str, Path]:
        suites = self._runs(STAGES["task_suite"])
        return merged_inputs(stage, self.loaded.config, self.partition, self.project, suites[0] if suites else None)

    def _named(self, role: str, upstream: str, directory: Path) -> UpstreamRun:
        if directory.is_file():
            directory = self._import(directory, role, upstream)
        manifest = read_manifest(directory)
        if upstream not in _origins(manifest):
            raise R2VError(
                f"--input {role}={directory} is a run of '{manifest.stage}'; name one of '{upstream}' instead"
            )
        if manifest.status != "done":
            raise R2VError(f"--input {role}={directory} is '{manifest.status}', not done; finish it first")
        if why := self._disagreement(STAGES[upstream], manifest):
            raise R2VError(f"--input {role}={directory}: {why}; choose the config that it was made with")
        return UpstreamRun(directory, manifest)

    def _import(self, file: Path, role: str, upstream: str) -> Path:
        """A file of episodes as a run."""
        if upstream not in ("collect", "perturb"):
            raise R2VError(f"--input {role}={file}: only episodes can come from a file; name a run directory")
        suites = self._runs(STAGES["task_suite"])
        teacher = teacher_identity(self.partition.teacher, self.project)
        paths, suite = self.loaded.config.paths, suites[0] if suites else None
        return imported_run(file, upstream, self.partition, teacher, self.project, paths, suite)

    def _found(self, stage: Stage, upstream: Stage, known: Path | None) -> UpstreamRun:
        if upstream.name in self._chosen:
            return self._chosen[upstream.name]
        agreeing = self.agreeing(stage, upstream, known)
        todays = self._todays(upstream, agreeing)
        if todays is None:
            log.warning(
                "%s: no %s of %s matches the current config and inputs; the newest one is read, %s",
                stage.asset,
                upstream.asset,
                self.partition.key,
                agreeing[0].manifest.run_id,
            )
        return self._chosen.setdefault(upstream.name, todays or agreeing[0])

    def agreeing(self, stage: Stage, upstream: Stage, known: Path | None) -> list[UpstreamRun]:
        """The runs that agree with the configuration, newest first; there is at least one."""
        runs = self._runs(upstream, known)
        agreeing = [run for run in runs if not self._disagreement(upstream, run.manifest)]
        if not agreeing:
            raise R2VError(self._missing(stage, upstream, runs))
        return agreeing

    def _runs(self, stage: Stage, known: Path | None = None) -> list[UpstreamRun]:
        """Finished runs of the partition, newest first."""
        paths, partition = self.loaded.config.paths, self.partition
        runs = find_runs(self.project, paths, stage, partition.experiment, partition.seed)
        if known is not None and known.resolve() not in {run.directory.resolve() for run in runs}:
            runs.append(UpstreamRun(known, read_manifest(known)))
            runs.sort(key=lambda run: (run.manifest.created_at, run.manifest.run_id), reverse=True)
        return runs

    def _todays(self, stage: Stage, runs: list[UpstreamRun]) -> UpstreamRun | None:
        try:
            inputs = self.inputs(stage, {}, {})
        except R2VError:
            return None  # what it was made from is gone, so nobody can tell
        made = (run for run in runs if is_made_of(run.manifest, stage, self.loaded, self.partition, inputs))
        return next(made, None)

    def _disagreement(self, stage: Stage, manifest: RunManifest) -> str | None:
        return disagreement(all_sections(stage, self.loaded.config), self.loaded, manifest)

    def _missing(self, stage: Stage, upstream: Stage, runs: list[UpstreamRun]) -> str:
        key, asset = self.partition.key, upstream.asset
        where = relative_to(runs_folder(self.project, self.loaded.config.paths, upstream), self.project)
        needs = f"'{stage.asset}' needs '{asset}' of partition '{key}', and "
        if runs:
            newest = runs[0].manifest
            why = f"the finished runs of it under {where} were made otherwise: {self._disagreement(upstream, newest)}"
            how = f". Use the config it was made with ({newest.config_path}), or make '{asset}' with this one:"
        else:
            why, how = f"there is no finished run of it under {where}", ". Make it first:"
        return (
            f"{needs}{why}{how}\n"
            f"  dagster asset materialize -m r2v_assets.definitions --select {asset} --partition '{key}'\n"
            f"  python -m r2v_core.stages.{upstream.name} --config {self.loaded.path} --partition '{key}'"
        )


def _origins(manifest: RunManifest) -> list[str]:
    """The stages that a run's data come from: a merge of one stage's runs is as good as a run of that stage, and so
    is a file of its episodes.
    """
    if manifest.stage == IMPORT:
        return [manifest.config["import"]["stage"]]
    merged = manifest.config.get("merge", {}).get("stages", []) if manifest.stage == MERGE else []
    return merged if len(merged) == 1 else [manifest.stage]
