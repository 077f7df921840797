"""Putting runs into the registry: idempotent, one short transaction, never an older state over a newer one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r2v_core.digest import digest_file
from r2v_core.errors import R2VError
from r2v_core.registry.database import Connection, read, write
from r2v_core.registry.records import RunRows, read_run
from r2v_core.registry.schema import TABLES
from r2v_core.registry.values import relative
from r2v_core.runs.abandoned import settle
from r2v_core.runs.artifacts import measure
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest

ROOTS = ("data", "outputs")
"""Folders below the project that are searched for runs."""
BATCH_EPISODES = 50_000
"""About so many episodes are held in memory before they are written."""
log = logging.getLogger(__name__)


def find_run_dirs(project: Path, roots: Iterable[str | Path] = ROOTS) -> Iterator[Path]:
    """Every directory below the roots that holds a manifest, sorted; hidden directories are not entered."""
    for root in roots:
        for folder, below, names in os.walk(project / root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if MANIFEST_NAME in names and (Path(folder) / MANIFEST_NAME).is_file():
                below.clear()
                yield Path(folder)


@dataclass
class SyncReport:
    """What a :func:`sync` did."""

    registered: list[str] = field(default_factory=list)
    """Run ids that are new or were brought up to date."""
    problems: list[str] = field(default_factory=list)
    """Broken manifests and run ids that are taken, one line each; they were left out."""


def register_runs(path: Path, run_dirs: Sequence[Path], project: Path) -> list[RunManifest]:
    """Register runs, all in one transaction, and return their manifests in the order given.

    A run that is registered already is replaced by its present state; where nothing changed, nothing is written.
    The reading is done before the lock is taken, so that the transaction is short.

    Raises:
        R2VError: for a missing or broken manifest, or if the registry can't be written; nothing is registered then.
    """
    return _register(path, list(run_dirs), [read_run(directory, project) for directory in run_dirs], project)


def sync(path: Path, project: Path, roots: Iterable[str | Path]) -> SyncReport:
    """Register every run below ``roots`` that the registry does not know, or knows in an older state.

    Runs made without an orchestrator (by hand, or while it was down) get in this way. Only manifests are looked at to
    find them, so that it is cheap to ask again. Runs that can't be registered are reported and hinder no other.

    Raises:
        R2VError: if the registry can't be read or written.
    """
    report = SyncReport()
    with read(path) as con:
        rows = con.execute("SELECT run_id, output_dir, manifest_digest, status FROM runs").fetchall()
    known, taken = {where: digest for _, where, digest, _ in rows}, {run_id: where for run_id, where, *_ in rows}
    running = {where for _, where, _, status in rows if status == "running"}
    batch: list[tuple[Path, RunRows]] = []
    for directory in dict.fromkeys(found.resolve() for found in find_run_dirs(project, roots)):
        where = relative(directory, project)
        try:
            if where in running:
                settle(directory, read_manifest(directory))
            if known.get(where) == digest_file(directory / MANIFEST_NAME):
                continue
            run = read_run(directory, project)
        except (R2VError, OSError) as error:
            report.problems.append(str(error))
            continue
        home = taken.setdefault(run.manifest.run_id, where)
        if home != where and (project / home / MANIFEST_NAME).exists():
            report.problems.append(f"{directory}: run id '{run.manifest.run_id}' is taken by {home}; left out")
            continue
        batch.append((directory, run))
        report.registered.append(run.manifest.run_id)
        if sum(run.tables["episodes"].num_rows for _, run in batch) >= BATCH_EPISODES:
            _register(path, [d for d, _ in batch], [run for _, run in batch], project)
            batch = []
    _register(path, [d for d, _ in batch], [run for _, run in batch], project)
    return report


def settle_running(path: Path, project: Path) -> None:
    """Bring runs up to date that are registered as running though their process on this machine was killed.

    Raises:
        R2VError: if the registry can't be read or written.
    """
    with read(path) as con:
        rows = con.execute("SELECT output_dir FROM runs WHERE status = 'running'").fetchall()
    there = [project / where for (where,) in rows if (project / where / MANIFEST_NAME).exists()]
    ended = [directory for directory in there if settle(directory, read_manifest(directory)).status != "running"]
    if ended:
        register_runs(path, ended, project)


def _register(path: Path, run_dirs: list[Path], runs: list[RunRows], project: Path) -> list[RunManifest]:
    with read(path) as con:
        stale = [i for i, run in enumerate(runs) if not _is_registered(con, run, project)]
    if stale:
        with write(path) as con:
            for i in stale:
                while digest_file(run_dirs[i] / MANIFEST_NAME) != runs[i].manifest_digest:  # it moved on meanwhile
                    runs[i] = read_run(run_dirs[i], project)
            insert(con, [runs[i] for i in stale])
    for run in runs:
        for problem in run.problems:
            log.warning("passed over %s", problem)
    return [run.manifest for run in runs]


def insert(con: Connection, runs: Sequence[RunRows]) -> None:
    """Replace the rows of these runs, a whole table at a time."""
    import pyarrow as pa

    runs = list({run.manifest.run_id: run for run in runs}.values())
    if not runs:
        return
    ids = pa.table({"run_id": [run.manifest.run_id for run in runs]})
    con.register("incoming_ids", ids)
    for table in TABLES:
        rows = pa.concat_tables([run.tables[table] for run in runs])
        con.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT run_id FROM incoming_ids)")
        if rows.num_rows:
            con.register("incoming", rows)
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
            con.unregister("incoming")
    con.unregister("incoming_ids")


def _is_registered(con: Connection, run: RunRows, project: Path) -> bool:
    """Whether the registry holds this very state of a run: same manifest, same place, same files by size."""
    rows = con.execute(
        "SELECT manifest_digest, output_dir FROM runs WHERE run_id = ?", [run.manifest.run_id]
    ).fetchall()
    if rows != [(run.manifest_digest, run.manifest.output_dir)]:
        return False
    known = con.execute(
        "SELECT name, path, kind, size_bytes FROM artifacts WHERE run_id = ? ORDER BY name", [run.manifest.run_id]
    ).fetchall()
    artifacts = run.tables["artifacts"].select(["name", "path"]).to_pylist()
    now = sorted((row["name"], row["path"], *measure(project / row["path"])) for row in artifacts)
    return now == known
