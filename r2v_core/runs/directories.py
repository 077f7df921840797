"""Run directories: where they lie, which there are, and the name of a new one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from r2v_core.config.schema import PathsConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.heads import scan_heads
from r2v_core.runs.locks import is_alive
from r2v_core.runs.manifest import begun_by_older, read_manifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage

log = logging.getLogger(__name__)

LONGEST_RUN_ID = 200
"""Bytes; file systems allow 255 for a name, and files are named after runs."""
_RUN_ID = re.compile(r"\w[\w.+:@=,~-]*")


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


def runs_folder(project: Path, paths: PathsConfig, stage: Stage) -> Path:
    """The folder that holds the run directories of a stage."""
    return project / paths.data / "runs" if stage.root == "data" else project / paths.outputs / stage.name


def iter_runs(
    project: Path,
    paths: PathsConfig,
    stage: Stage,
    experiment: str | None = None,
    seed: int | None = None,
    status: str | None = None,
) -> Iterator[UpstreamRun]:
    """Readable runs of a stage, newest first, of one experiment, seed and status where given.

    Only the manifests of runs that are asked for are parsed, and only as far as the caller goes on.
    """
    wanted = [
        head
        for head in scan_heads(runs_folder(project, paths, stage))
        if head.stage == stage.name
        and (experiment is None or head.partition.rpartition("|")[0] == experiment)
        and (seed is None or head.seed == seed)
        and (status is None or head.status == status)
    ]
    for head in sorted(wanted, key=lambda head: (head.created_at, head.run_id), reverse=True):
        try:
            yield UpstreamRun(head.directory, read_manifest(head.directory))
        except R2VError:
            continue  # `r2v registry doctor` reports broken manifests; planning looks for usable ones


def find_runs(
    project: Path, paths: PathsConfig, stage: Stage, experiment: str | None = None, seed: int | None = None
) -> list[UpstreamRun]:
    """Finished runs of a stage, newest first, of one experiment and seed where given."""
    return list(iter_runs(project, paths, stage, experiment, seed, "done"))


def check_run_id(run_id: str) -> None:
    """Refuse what is no name of a run directory.

    Raises:
        R2VError: with what a name may hold.
    """
    if not _RUN_ID.fullmatch(run_id) or len(run_id.encode()) > LONGEST_RUN_ID:
        shown = ascii(run_id if len(run_id) <= 60 else run_id[:60] + "…")
        raise R2VError(
            f"--run-id {shown}: a run id names a folder: letters, digits and . _ - + : @ = , ~, beginning with "
            f"a letter or digit, at most {LONGEST_RUN_ID} bytes; to read a run that lies elsewhere, use --input"
        )


def new_run_id(stage: Stage, partition: Partition, teacher: tuple[str, str], folder: Path) -> str:
    """``{benchmark}_{provider}_{model}_{YYYYMMDDTHHMMSS}`` for trajectory runs, as existing scripts expect.

    Other stages put their name in front. A suffix ``-2``, ``-3``, … where two would collide.

    Args:
        teacher: provider and model of the partition's teacher.
    """
    provider, model = teacher
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


def find_resumable(
    project: Path, paths: PathsConfig, stage: Stage, partition: Partition, wanted: str
) -> UpstreamRun | None:
    """The newest unfinished run with the same fingerprint whose process is gone; none that an older version began.

    An older one that nothing has replaced yet is named in a warning.
    """
    replaced = False
    for run in iter_runs(project, paths, stage, partition.experiment, partition.seed):
        manifest = run.manifest
        replaced = replaced or manifest.status == "done"
        if manifest.status != "done" and (why := begun_by_older(run.directory)):
            if not replaced:
                log.warning("%s; a new run begins", why)
            continue
        if manifest.fingerprint != wanted:
            continue
        if manifest.status == "done":
            return None  # finished since: an older wreck is of no use
        if not is_alive(run.directory):
            return run
    return None
