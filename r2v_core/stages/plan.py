"""Planning a run: which inputs, which directory, and whether an interrupted run can be taken up again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.directories import find_resumable, find_runs, new_run_id, project_root, relative_to, runs_folder
from r2v_core.runs.fingerprint import fingerprint
from r2v_core.runs.locks import is_alive
from r2v_core.runs.manifest import IMPORT, MANIFEST_NAME, MERGE, RunInput, RunManifest, begun_by_older, read_manifest
from r2v_core.runs.spec import StageSpec, UpstreamRun
from r2v_core.runs.stage import Stage
from r2v_core.stages.extend import base_input
from r2v_core.stages.file_inputs import imported_run
from r2v_core.stages.merged_inputs import merged_inputs, merged_roles
from r2v_core.stages.table import STAGES, get_stage
from r2v_core.teachers import check_teacher, teacher_identity


def parse_inputs(stage: str, given: Iterable[str]) -> dict[str, Path]:
    """Role → run directory or file, from ``ROLE=PATH`` items.

    Raises:
        R2VError: naming an item that is not one, with the stage's roles.
    """
    paths = {}
    for item in given:
        role, _, path = item.partition("=")
        if not path:
            roles = ", ".join(role for role, _ in get_stage(stage).inputs) or "none"
            raise R2VError(f"--input {item}: write ROLE=RUN_DIR; the roles: {roles}")
        paths[role] = Path(path)
    return paths


def find_inputs(
    stage: Stage, loaded: LoadedConfig, partition: Partition, project: Path, given: Mapping[str, Path]
) -> list[RunInput]:
    """The upstream runs of a stage: those given by role, the merges that ``data.merge`` names (made where they are
    new), else the newest finished ones of the partition.

    Raises:
        R2VError: naming the missing input and the two commands that make it, or an unknown role.
    """
    roles = [role for role, _ in stage.inputs]
    for role in given:
        if role not in roles:
            raise R2VError(f"stage '{stage.name}' has no input '{role}'; its inputs: {', '.join(roles) or 'none'}")
    merged = merged_roles(stage, loaded.config)
    if twice := [role for role in merged if role in given]:
        raise R2VError(
            f"both data.merge and --input {twice[0]}=… say what '{stage.name}' learns from; give one of them"
        )
    if merged:
        suites = find_runs(
            project, loaded.config.paths, STAGES["task_suite"], partition.benchmark_teacher, partition.seed
        )
        given = {
            **given,
            **merged_inputs(stage, loaded.config, partition, project, suites[0] if suites else None),
        }
    found = []
    for role, upstream in stage.inputs:
        if role in given:
            directory = given[role]
            if directory.is_file():
                directory = _import(directory, role, upstream, loaded, partition, project)
            manifest = read_manifest(directory)
            if upstream not in _origins(manifest):
                raise R2VError(f"--input {role}={directory} is a run of '{manifest.stage}', not of '{upstream}'")
            if manifest.status != "done":
                raise R2VError(f"--input {role}={directory} is '{manifest.status}', not done; finish it first")
            run = UpstreamRun(directory, manifest)
        else:
            runs = find_runs(
                project, loaded.config.paths, STAGES[upstream], partition.benchmark_teacher, partition.seed
            )
            if not runs:
                asset = STAGES[upstream].asset
                where = runs_folder(project, loaded.config.paths, STAGES[upstream])
                raise R2VError(
                    f"'{stage.asset}' needs '{asset}' of partition '{partition.key}', and there is no finished run "
                    f"of it under {relative_to(where, project)}. Make it first:\n"
                    f"  dagster asset materialize -m r2v_assets.definitions --select {asset} "
                    f"--partition '{partition.key}'\n"
                    f"  python -m r2v_core.stages.{upstream} --config {loaded.path} --partition '{partition.key}'"
                )
            run = runs[0]
        found.append(
            RunInput(
                role=role,
                run_id=run.manifest.run_id,
                digest=run.manifest.digest,
                path=relative_to(run.directory, project),
            )
        )
    return found


def _import(file: Path, role: str, upstream: str, loaded: LoadedConfig, partition: Partition, project: Path) -> Path:
    """A file of episodes as a run."""
    if upstream not in ("collect", "perturb"):
        raise R2VError(f"--input {role}={file}: only episodes can come from a file; name a run directory")
    paths = loaded.config.paths
    suites = find_runs(project, paths, STAGES["task_suite"], partition.benchmark_teacher, partition.seed)
    teacher = teacher_identity(partition.teacher, project)
    return imported_run(file, upstream, partition, teacher, project, paths, suites[0] if suites else None)


def _origins(manifest: RunManifest) -> list[str]:
    """The stages that a run's data come from: a merge of one stage's runs is as good as a run of that stage, and so
    is a file of its episodes.
    """
    if manifest.stage == IMPORT:
        return [manifest.config["import"]["stage"]]
    merged = manifest.config.get("merge", {}).get("stages", []) if manifest.stage == MERGE else []
    return merged if len(merged) == 1 else [manifest.stage]


def plan(
    stage_name: str,
    partition: Partition,
    loaded: LoadedConfig,
    *,
    project: Path | None = None,
    overrides: Iterable[str] = (),
    inputs: Mapping[str, Path] | None = None,
    run_id: str | None = None,
    resume: bool = True,
    extend: str | None = None,
    tags: Iterable[str] = (),
    notes: str = "",
) -> StageSpec:
    """Decide everything about a run before any work.

    ``run_id`` names a run to continue (or to create under that name). Without it, an interrupted run with the same
    fingerprint is taken up again unless ``resume`` is false. ``extend`` names a finished run (directory or id) to
    build on, see :mod:`r2v_core.stages.extend`.

    Raises:
        R2VError: for a missing input, an unknown role, a finished or foreign ``run_id``, or one still running.
    """
    project = project or project_root()
    stage = get_stage(stage_name)
    check_teacher(partition.teacher, loaded.config.teacher.options, project)
    if loaded.config.candidates.scored_by == "judge":
        check_teacher(loaded.config.judge.teacher, loaded.config.judge.options, project, role="judge")
    if loaded.config.benchmark.name != partition.benchmark:
        raise R2VError(
            f"partition '{partition.key}' is of benchmark '{partition.benchmark}', but {loaded.path} sets "
            f"benchmark.name: {loaded.config.benchmark.name}; choose another --config"
        )
    found = find_inputs(stage, loaded, partition, project, inputs or {})
    if extend is not None:
        found.append(base_input(stage, partition, loaded, project, extend, found))
    print_ = fingerprint(stage, loaded, partition, found)
    folder = runs_folder(project, loaded.config.paths, stage)
    existing: RunManifest | None = None
    if run_id is not None:
        if (folder / run_id / MANIFEST_NAME).exists():
            existing = read_manifest(folder / run_id)
            _check_continuable(existing, stage, partition, print_, folder / run_id)
        (folder / run_id).mkdir(parents=True, exist_ok=True)
    elif resume and (wreck := find_resumable(project, loaded.config.paths, stage, partition, print_)):
        existing, run_id = wreck.manifest, wreck.manifest.run_id
    provider, model = teacher_identity(partition.teacher, project)
    run_id = run_id or new_run_id(stage, partition, (provider, model), folder)
    return StageSpec(
        stage=stage.name,
        partition=partition.key,
        provider=provider,
        model=model,
        run_id=run_id,
        run_dir=str(folder / run_id),
        project=str(project),
        config_path=str(loaded.path) if loaded.path else None,
        config=loaded.config,
        overrides=list(overrides),
        inputs=found,
        fingerprint=print_,
        resumed=existing is not None,
        tags=sorted({*tags, *(existing.tags if existing else [])}),
        notes=notes or (existing.notes if existing else ""),
    )


def _check_continuable(existing: RunManifest, stage: Stage, partition: Partition, print_: str, where: Path) -> None:
    if existing.stage != stage.name or existing.partition != partition.key:
        raise R2VError(
            f"run '{existing.run_id}' is {existing.stage} of '{existing.partition}', not {stage.name} of "
            f"'{partition.key}'; choose another --run-id"
        )
    if existing.status == "done":
        raise R2VError(f"run '{existing.run_id}' is already done and immutable ({where}); leave --run-id out")
    if why := begun_by_older(where):
        raise R2VError(f"{why}; leave --run-id out to start a new run")
    if existing.fingerprint != print_:
        raise R2VError(
            f"run '{existing.run_id}' was begun with another config, code version or inputs (fingerprint "
            f"{existing.fingerprint[:12]} against {print_[:12]}); leave --run-id out to start a new run"
        )
    if is_alive(where):
        raise R2VError(f"run '{existing.run_id}' is being written by another process right now")
