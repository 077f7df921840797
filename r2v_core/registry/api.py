"""The registry as one object."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2v_core.errors import R2VError
from r2v_core.registry import doctor as _doctor
from r2v_core.registry import legacy, merge, merge_files, merged_run, queries, selection
from r2v_core.registry import lineage as _lineage
from r2v_core.registry import rebuild as _rebuild
from r2v_core.registry.database import read, read_closed
from r2v_core.registry.register import ROOTS, SyncReport, register_runs, settle_running, sync
from r2v_core.registry.sql import TIMEOUT_S, run_sql
from r2v_core.registry.store import MergedStore
from r2v_core.runs.manifest import RunManifest
from r2v_core.trajectory import Episode

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class DataRegistry:
    """All runs of a project. The file is opened for each call and closed again; any number of processes may share it.

    Args:
        project: the project root that relative paths start from (default: the present directory).
        path: the registry file (default: ``<project>/data/registry.duckdb``).

    Every method raises R2VError if the file is corrupt or of a newer schema.
    """

    def __init__(self, project: Path | None = None, path: Path | None = None) -> None:
        self.project = Path(project or Path.cwd()).resolve()
        self.path = Path(path) if path else self.project / "data" / "registry.duckdb"

    def __repr__(self) -> str:
        return f"DataRegistry({str(self.path)!r})"

    def register(self, run_dir: Path) -> RunManifest:
        """Add a run, or bring it up to date, from its manifest and the data beside it. Safe to repeat.

        Raises:
            R2VError: if the manifest is missing or broken, or the registry can't be written (locked, read-only, disk
                full); it is then what it was before.
        """
        return self.register_all([run_dir])[0]

    def register_all(self, run_dirs: Sequence[Path]) -> list[RunManifest]:
        """:meth:`register` for several runs in one transaction: all of them or none."""
        return register_runs(self.path, [self._run_dir(directory) for directory in run_dirs], self.project)

    def _run_dir(self, directory: Path) -> Path:
        directory = Path(directory)
        return directory if directory.is_absolute() or directory.exists() else self.project / directory

    def summary(self) -> queries.Summary:
        """``runs, episodes, unique_episodes, cost_usd`` and ``groups``: one entry a stage, teacher and status."""
        with read(self.path) as con:
            return queries.summary(con)

    def count_unique(self, run_ids: Iterable[str] | None = None) -> int:
        """Number of different action sequences, in these runs or in all."""
        with read(self.path) as con:
            return queries.count_unique(con, run_ids)

    def query(
        self,
        *,
        benchmark: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status: str | None = None,
        tag: str | None = None,
        stage: str | None = None,
        seed: int | None = None,
        variant: str | None = None,
        since: str | date | datetime | None = None,
        where: str | None = None,
    ) -> queries.Runs:
        """Runs that meet every condition given, newest first; ``where`` is a SQL condition on the table ``runs``."""
        equal = {
            "benchmark": benchmark,
            "provider": provider,
            "model": model,
            "status": status,
            "stage": stage,
            "seed": seed,
            "variant": variant,
        }
        with read_closed(self.path, TIMEOUT_S) if where is not None else read(self.path) as con:
            return queries.query(con, equal=equal, tag=tag, since=since, where=where)

    def latest_run(
        self,
        benchmark: str | None = None,
        model: str | None = None,
        *,
        stage: str | None = "collect",
        status: str | None = "done",
        seed: int | None = None,
        partition: str | None = None,
    ) -> RunManifest | None:
        """The newest finished run, of collected trajectories unless ``stage`` says otherwise; None without one."""
        equal = {
            "benchmark": benchmark,
            "model": model,
            "stage": stage,
            "status": status,
            "seed": seed,
            "partition": partition,
        }
        with read(self.path) as con:
            found = queries.query(con, equal=equal)
            return queries.get_run(con, found[0].run_id) if len(found) else None

    def get_run(self, run_id: str) -> RunManifest:
        """A run's manifest as registered. Raises R2VError for an unknown id, with the nearest known one."""
        with read(self.path) as con:
            return queries.get_run(con, run_id)

    def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> pd.DataFrame:
        """The answer to one SELECT over the tables and views of ``schema.sql``.

        Raises:
            R2VError: for bad SQL, or a statement that would write anything, read any other file, or takes longer
                than ``timeout_s`` seconds (0: no limit).
        """
        return run_sql(self.path, query, params, timeout_s)

    def lineage(self, run_id: str, direction: _lineage.Direction = "up") -> _lineage.Lineage:
        """The graph of runs around one: ``up`` (what it came from), ``down`` (what came of it) or ``both``."""
        with read(self.path) as con:
            return _lineage.lineage(con, run_id, direction)

    def split_conflicts(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Task templates that stand in different splits in different ones of these runs (empty is good)."""
        with read(self.path) as con:
            return queries.split_conflicts(con, queries.require_runs(con, run_ids))

    def iter_episodes(
        self,
        run_ids: Iterable[str],
        deduplicate: bool = True,
        *,
        stages: Sequence[str] | None = selection.STAGES,
        splits: Sequence[str] | None = selection.SPLITS,
    ) -> Iterator[Episode]:
        """The training data in some runs, oldest run first (``created_at``, then ``run_id``), in file order.

        These are collected and perturbed trajectories of the training split; whatever else the runs hold is left out,
        with a warning that says what, unless ``stages`` or ``splits`` name it (None: any). Of trajectories with the
        same action sequence only the oldest run's copy comes, unless ``deduplicate`` is false.

        Raises:
            R2VError: for an empty list, an unknown run, runs without episodes, or files that are gone or changed.
        """
        sources, left_out = self._plan(run_ids, deduplicate, stages, splits)
        if left_out:
            log.warning(selection.describe(left_out))
        return merge_files.iter_episodes(sources)

    def merge_runs(
        self,
        run_ids: Iterable[str],
        output_path: str | Path,
        deduplicate: bool = True,
        *,
        stages: Sequence[str] | None = selection.STAGES,
        splits: Sequence[str] | None = selection.SPLITS,
    ) -> MergedStore:
        """Write the episodes that :meth:`iter_episodes` gives to one ``.jsonl`` or ``.parquet`` file.

        Returns:
            the file as a store: ``iter_episodes()``, ``n_episodes``, ``kept`` and ``dropped`` per run, ``left_out``.

        Raises:
            R2VError: as :meth:`iter_episodes`, and if the output can't be written; it is then what it was before.
        """
        sources, left_out = self._plan(run_ids, deduplicate, stages, splits)
        if left_out:
            log.warning(selection.describe(left_out))
        return replace(merge_files.write_merged(sources, Path(output_path)), left_out=left_out)

    def _plan(
        self, run_ids: Iterable[str], deduplicate: bool, stages: Sequence[str] | None, splits: Sequence[str] | None
    ) -> tuple[list[merge.Source], selection.LeftOut]:
        with read(self.path) as con:
            chosen, left_out = selection.choose_stages(con, run_ids, stages)
            left_out += selection.other_splits(con, chosen, splits)
            return merge.plan(con, chosen, self.project, deduplicate, splits=splits), left_out

    def merge_to_run(
        self,
        run_ids: Sequence[str] | None = None,
        *,
        where: str | None = None,
        deduplicate: bool = True,
        stages: Sequence[str] | None = selection.STAGES,
        splits: Sequence[str] | None = selection.SPLITS,
        runs_folder: Path | None = None,
        tags: Sequence[str] = (),
        notes: str = "",
    ) -> RunManifest:
        """Merge runs into a new registered run with its own manifest and lineage (see ``merged_run.merge_to_run``)."""
        directory = merged_run.merge_to_run(
            self.path,
            self.project,
            runs_folder or self.project / "data" / "runs",
            run_ids=run_ids,
            where=where,
            deduplicate=deduplicate,
            stages=stages,
            splits=splits,
            tags=tags,
            notes=notes,
        )
        return self.register(directory)

    def sync(self, roots: Sequence[str | Path] = ROOTS) -> SyncReport:
        """Register the runs below ``roots`` that the registry does not know, or knows in an older state."""
        return sync(self.path, self.project, roots)

    def settle(self) -> None:
        """Tell the truth of registered runs whose process on this machine was killed; what can't be written stays."""
        with suppress(R2VError):
            settle_running(self.path, self.project)

    def rebuild(self, roots: Sequence[str | Path] = ROOTS) -> _rebuild.RebuildReport:
        """Recreate the registry from the manifests and data below ``roots``; the present file may be corrupt."""
        return _rebuild.rebuild(self.path, self.project, roots)

    def doctor(self, roots: Sequence[str | Path] = ROOTS, *, check_digests: bool = True) -> list[_doctor.Finding]:
        """Where registry and disk disagree; an empty list is good."""
        return _doctor.diagnose(self.path, self.project, roots, check_digests=check_digests)

    def run_problems(self, digests: Mapping[str, str]) -> dict[str, list[str]]:
        """Run id → what is wrong with it, given the digest it should have (see ``doctor.run_problems``)."""
        return _doctor.run_problems(self.path, self.project, digests)

    def import_legacy(self, source: Path) -> legacy.ImportReport:
        """Take over an old ``registry.json`` and the runs beside it (see :mod:`r2v_core.registry.legacy`)."""
        report = legacy.convert(Path(source), self.project)
        self.register_all(report.directories)
        return report
