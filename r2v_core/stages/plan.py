"""Planning a run: which inputs, which directory, and whether an interrupted run can be taken up again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from r2v_core.config import LoadedConfig
from r2v_core.engines import check_engine
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs import processes
from r2v_core.runs.directories import check_run_id, find_resumable, new_run_id, project_root, relative_to, runs_folder
from r2v_core.runs.fingerprint import fingerprint
from r2v_core.runs.locks import is_alive
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, begun_by_older, read_manifest
from r2v_core.runs.spec import StageSpec
from r2v_core.runs.stage import Stage
from r2v_core.stages.extend import base_input
from r2v_core.stages.inputs import find_inputs
from r2v_core.stages.table import get_stage
from r2v_core.teachers import check_teacher, teacher_identity
from r2v_core.teachers.spending import check_budgets


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


def plan(
    stage_name: str,
    partition: Partition,
    loaded: LoadedConfig,
    *,
    project: Path | None = None,
    overrides: Iterable[str] = (),
    inputs: Mapping[str, Path] | None = None,
    known: Mapping[str, Path] | None = None,
    run_id: str | None = None,
    resume: bool = True,
    extend: str | None = None,
    tags: Iterable[str] = (),
    notes: str = "",
) -> StageSpec:
    """Decide everything about a run before any work.

    ``inputs`` are runs named by role, which are read whatever else there is; ``known`` are runs that an orchestrator
    knows of, which are looked at beside those on disk (:mod:`r2v_core.stages.inputs`).
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
    check_engine(loaded.config.slm)
    if loaded.config.benchmark.name != partition.benchmark:
        raise R2VError(
            f"partition '{partition.key}' is of benchmark '{partition.benchmark}', but {loaded.path} sets "
            f"benchmark.name: {loaded.config.benchmark.name}; choose another --config"
        )
    check_budgets(partition, loaded, project)
    found = find_inputs(stage, loaded, partition, project, inputs or {}, known or {})
    if extend is not None:
        found.append(base_input(stage, partition, loaded, project, extend, found))
    print_ = fingerprint(stage, loaded, partition, found)
    folder = runs_folder(project, loaded.config.paths, stage)
    existing: RunManifest | None = None
    if run_id is not None:
        check_run_id(run_id)
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
        config_path=relative_to(loaded.path, project.resolve()) if loaded.path else None,
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
    if processes.shard() is None and is_alive(where):
        raise R2VError(f"run '{existing.run_id}' is being written by another process right now")
