"""Recreating the whole registry from the runs on disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from r2v_core.errors import R2VError
from r2v_core.registry.database import read, write
from r2v_core.registry.records import RunRows, read_run
from r2v_core.registry.register import BATCH_EPISODES, ROOTS, find_run_dirs, insert
from r2v_core.registry.values import relative
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest


@dataclass
class RebuildReport:
    """What a rebuild found."""

    n_runs: int = 0
    n_episodes: int = 0
    problems: list[str] = field(default_factory=list)
    """Broken manifests, repeated run ids and broken lines, one line each; they were left out."""


def rebuild(path: Path, project: Path, roots: Sequence[str | Path] = ROOTS) -> RebuildReport:
    """Replace the registry by one made from manifests and data alone.

    Runs that the present registry knows elsewhere are visited too. The present file is kept beside the new one as
    ``<name>.before-rebuild``. Other writers wait meanwhile; readers see the old registry until the new one is whole.

    Raises:
        R2VError: if the registry can't be written; it is then what it was before.
    """
    report = RebuildReport()
    known = _known(path, project)
    with write(path, fresh=True) as con:
        directories = _choose(project, [*find_run_dirs(project, roots), *known], report)
        batch: list[RunRows] = []
        for directory in directories:
            try:
                batch.append(read_run(directory, project))
            except R2VError as error:
                report.problems.append(str(error))
                continue
            if sum(run.tables["episodes"].num_rows for run in batch) >= BATCH_EPISODES or len(batch) >= 500:
                _flush(con, batch, report)
        _flush(con, batch, report)
        real = Path(os.path.realpath(path))
        if real.exists():
            shutil.copyfile(real, real.with_name(f"{real.name}.before-rebuild"))
    return report


def _flush(con: duckdb.DuckDBPyConnection, batch: list[RunRows], report: RebuildReport) -> None:
    insert(con, batch)
    report.n_runs += len(batch)
    report.n_episodes += sum(run.tables["episodes"].num_rows for run in batch)
    report.problems += [problem for run in batch for problem in run.problems]
    batch.clear()


def _known(path: Path, project: Path) -> list[Path]:
    """Directories of the runs in the present registry that still hold a manifest; none if it can't be read."""
    directories: list[Path] = []
    with suppress(R2VError), read(path) as con:
        rows = con.execute("SELECT output_dir FROM runs ORDER BY run_id").fetchall()
        directories = [project / row[0] for row in rows if (project / row[0] / MANIFEST_NAME).exists()]
    return directories


def _choose(project: Path, directories: Iterable[Path], report: RebuildReport) -> list[Path]:
    """One directory a run id: where two have the same, the one that its manifest names."""
    chosen: dict[str, Path] = {}
    for directory in dict.fromkeys(d.resolve() for d in directories):
        try:
            manifest = read_manifest(directory)
        except R2VError as error:
            report.problems.append(str(error))
            continue
        other = chosen.get(manifest.run_id)
        if other is None:
            chosen[manifest.run_id] = directory
            continue
        is_home = relative(directory, project) == manifest.output_dir
        kept, left = (directory, other) if is_home else (other, directory)
        chosen[manifest.run_id] = kept
        report.problems.append(f"{left}: run id '{manifest.run_id}' occurs twice; the copy in {kept} was registered")
    return list(chosen.values())
