"""Planning a run: which inputs, which directory, and whether an interrupted run can be taken up again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from r2v_core.config import LoadedConfig, section
from r2v_core.config.schema import Paths
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.manifest import MANIFEST_NAME, RunInput, RunManifest, read_manifest
from r2v_core.partition import Partition
from r2v_core.stages.merged_inputs import merged_inputs, merged_roles
from r2v_core.stages.spec import StageSpec, UpstreamRun
from r2v_core.stages.table import STAGES, Stage, get_stage
from r2v_core.teachers import check_teacher, teacher_identity

LOCK_NAME = ".lock"


def project_root(start: Path | None = None) -> Path:
    """The project: ``$R2V_PROJECT``, else the nearest folder upwards that holds ``configs/``, else the start."""
    if os.environ.get("R2V_PROJECT"):
        return Path(os.environ["R2V_PROJECT"]).resolve()
    start = (start or Path.cwd()).resolve()
    return next((folder for folder in (start, *start.parents) if (folder / "configs").is_dir()), start)


def relative_to(path: Path, project: Path) -> str:
    """``path`` as manifests store it: below the project if it lies there, else absolute."""
    path = path.resolve()
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.as_posix()


def runs_folder(project: Path, paths: Paths, stage: Stage) -> Path:
    """The folder that holds the run directories of a stage."""
    return project / paths.data / "runs" if stage.root == "data" else project / paths.outputs / stage.name


def iter_runs(project: Path, paths: Paths, stage: str) -> Iterator[UpstreamRun]:
    """Every readable run of a stage, newest first."""
    folder = runs_folder(project, paths, get_stage(stage))
    runs = []
    for path in folder.glob(f"*/{MANIFEST_NAME}"):
        try:
            manifest = read_manifest(path.parent)
        except R2VError:
            continue  # `r2v registry doctor` reports broken manifests; planning looks for usable ones
        if manifest.stage == stage:
            runs.append(UpstreamRun(path.parent, manifest))
    yield from sorted(runs, key=lambda run: (run.manifest.created_at, run.manifest.run_id), reverse=True)


def find_runs(
    project: Path, paths: Paths, stage: str, benchmark_teacher: str | None = None, seed: int | None = None
) -> list[UpstreamRun]:
    """Finished runs of a stage, newest first, of one experiment and seed where given."""
    return [
        run
        for run in iter_runs(project, paths, stage)
        if run.manifest.status == "done"
        and (benchmark_teacher is None or run.manifest.partition.split("|")[0] == benchmark_teacher)
        and (seed is None or run.manifest.seed == seed)
    ]


def fingerprint(stage: Stage, loaded: LoadedConfig, partition: Partition, inputs: Iterable[RunInput]) -> str:
    """What decides a stage's result: code version, the config it reads, partition and input digests."""
    return digest_of(
        {
            "stage": stage.name,
            "version": stage.version,
            "config": {name: section(loaded.config, name) for name in stage.sections},
            "partition": partition.key,
            "inputs": {item.role: item.digest for item in inputs},
        }
    )


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
        suites = find_runs(project, loaded.config.paths, "task_suite", partition.benchmark_teacher, partition.seed)
        given = {
            **given,
            **merged_inputs(stage, loaded.config, partition, project, suites[0] if suites else None),
        }
    found = []
    for role, upstream in stage.inputs:
        if role in given:
            directory = given[role]
            manifest = read_manifest(directory)
            if upstream not in _origins(manifest):
                raise R2VError(f"--input {role}={directory} is a run of '{manifest.stage}', not of '{upstream}'")
            if manifest.status != "done":
                raise R2VError(f"--input {role}={directory} is '{manifest.status}', not done; finish it first")
            run = UpstreamRun(directory, manifest)
        else:
            runs = find_runs(project, loaded.config.paths, upstream, partition.benchmark_teacher, partition.seed)
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


def _origins(manifest: RunManifest) -> list[str]:
    """The stages that a run's data come from: a merge of one stage's runs is as good as a run of that stage."""
    merged = manifest.config.get("merge", {}).get("stages", []) if manifest.stage == "merge" else []
    return merged if len(merged) == 1 else [manifest.stage]


def new_run_id(stage: Stage, partition: Partition, folder: Path, project: Path) -> str:
    """``{benchmark}_{provider}_{model}_{YYYYMMDDTHHMMSS}`` for trajectory runs, as existing scripts expect.

    Other stages put their name in front. A suffix ``-2``, ``-3``, … where two would collide.
    """
    provider, model = teacher_identity(partition.teacher, project)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    base = f"{partition.benchmark}_{provider}_{model}_{stamp}".replace("/", "-")
    if stage.name != "collect":
        base = f"{stage.name}_{base}"
    run_id, n = base, 1
    while True:
        try:
            (folder / run_id).mkdir(parents=True)
            return run_id
        except FileExistsError:
            n += 1
            run_id = f"{base}-{n}"


def is_alive(run_dir: Path) -> bool:
    """Whether some process holds the run's lock right now."""
    try:
        with FileLock(run_dir / LOCK_NAME, timeout=0):
            return False
    except Timeout:
        return True


def find_resumable(project: Path, paths: Paths, stage: Stage, partition: Partition, wanted: str) -> UpstreamRun | None:
    """The newest unfinished run with the same fingerprint whose process is gone."""
    for run in iter_runs(project, paths, stage.name):
        manifest = run.manifest
        if manifest.partition != partition.key or manifest.fingerprint != wanted:
            continue
        if manifest.status == "done":
            return None  # finished since: an older wreck is of no use
        if not is_alive(run.directory):
            return run
    return None


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
    tags: Iterable[str] = (),
    notes: str = "",
) -> StageSpec:
    """Decide everything about a run before any work.

    ``run_id`` names a run to continue (or to create under that name). Without it, an interrupted run with the same
    fingerprint is taken up again unless ``resume`` is false.

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
    run_id = run_id or new_run_id(stage, partition, folder, project)
    return StageSpec(
        stage=stage.name,
        partition=partition.key,
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
    if existing.fingerprint != print_:
        raise R2VError(
            f"run '{existing.run_id}' was begun with another config, code version or inputs (fingerprint "
            f"{existing.fingerprint[:12]} against {print_[:12]}); leave --run-id out to start a new run"
        )
    if is_alive(where):
        raise R2VError(f"run '{existing.run_id}' is being written by another process right now")
