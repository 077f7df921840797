"""A merge as a run of its own: data, manifest and lineage, so that a training stage can name it as its input."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from r2v_core.digest import digest_file, digest_of
from r2v_core.errors import R2VError
from r2v_core.registry import queries, selection
from r2v_core.registry.database import Connection, read_closed
from r2v_core.registry.episode_rows import EPISODES_JSONL, EPISODES_PARQUET
from r2v_core.registry.merge import Source, plan
from r2v_core.registry.merge_files import write_merged
from r2v_core.registry.values import json_text, relative
from r2v_core.runs.artifacts import digests, measure
from r2v_core.runs.manifest import RunInput, RunManifest, utc_now, write_atomic, write_manifest

STAGE = "merge"
PREFIX = "merge_"
COUNTS = "merge.json"
"""Beside the data: kept and dropped per run."""
_NAMES = 3
"""A directory is named after at most so many benchmarks, providers or models."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merge:
    """A merge that is decided and not yet written."""

    manifests: list[RunManifest]
    """Of the merged runs, oldest first."""
    sources: list[Source]
    inputs: list[RunInput]
    config: dict[str, Any]
    digest: str
    """Follows from the digests of what is merged and the rules, so that the same merge again is nothing new."""

    @property
    def n_episodes(self) -> int:
        """Episodes that are kept."""
        return sum(len(source.lines) for source in self.sources)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Run → ``kept``, ``dropped`` and how many of these were ``held_out``, oldest run first."""
        return {s.run_id: {"kept": len(s.lines), "dropped": s.dropped, "held_out": s.n_held_out} for s in self.sources}


def stages_of(manifest: RunManifest) -> list[str]:
    """The stages whose episodes a run holds: its own, or those that were merged into it."""
    if manifest.stage != STAGE:
        return [manifest.stage]
    return list(manifest.config.get("merge", {}).get("stages", []))


def chosen_ids(con: Connection, run_ids: Sequence[str] | None, where: str | None) -> list[str]:
    """The runs named by their ids or by a condition, oldest first.

    Raises:
        R2VError: unless exactly one of the two is given, for an unknown id, or if no run is meant.
    """
    if (run_ids is None) == (where is None):
        raise R2VError("name the runs to merge either by run_ids or by a where condition")
    if run_ids is None:
        run_ids = [run.run_id for run in queries.query(con, equal={}, where=where)]
        if not run_ids:
            raise R2VError(f"nothing to merge: no run meets {where!r}; see what there is: r2v registry query")
    return queries.require_runs(con, run_ids)


def prepare(
    con: Connection,
    project: Path,
    run_ids: Sequence[str],
    *,
    where: str | None = None,
    deduplicate: bool = True,
    held_out: Collection[str] = (),
    suite: RunInput | None = None,
    copies_of: Merge | None = None,
    splits: Collection[str] | None = None,
) -> Merge:
    """Decide a merge of registered runs.

    Args:
        con: an open registry.
        project: the project root.
        run_ids: what to merge.
        where: the condition that found them, for the record.
        deduplicate: leave out repeated action sequences.
        held_out: templates of which nothing may be learnt; their episodes are left out.
        suite: the task suite that says so, for the lineage.
        copies_of: keep exactly the perturbed copies of the episodes that this merge keeps.
        splits: take episodes of these splits, and those that name none; None takes all.

    Raises:
        R2VError: for an unknown run, one that is not finished, nothing to merge, or templates that stand in different
            splits in different runs (training on them would leak test tasks).
    """
    sources = plan(
        con,
        run_ids,
        project,
        deduplicate,
        held_out=held_out,
        copies_of=copies_of.sources if copies_of else None,
        splits=splits,
    )
    manifests = [queries.get_run(con, source.run_id) for source in sources]
    for manifest in manifests:
        if manifest.status not in ("done", "partial"):
            raise R2VError(f"run '{manifest.run_id}' is {manifest.status}; merge finished runs (status = 'done')")
    if conflicts := queries.split_conflicts(con, [source.run_id for source in sources]):
        first = conflicts[0]
        raise R2VError(
            f"{len(conflicts)} task templates stand in different splits, e.g. '{first['template_id']}' in "
            f"{' and '.join(first['splits'])} (runs {', '.join(first['run_ids'])}); merge runs of one task suite"
        )
    inputs = [RunInput(role="source", run_id=m.run_id, digest=m.digest, path=m.output_dir) for m in manifests]
    content = {
        "sources": [m.digest or digest_file(s.path) for m, s in zip(manifests, sources, strict=True) if s.n_all],
        "kept": [len(source.lines) for source in sources],
        "deduplicate": deduplicate,
        "held_out": _met(con, run_ids, held_out) if any(source.n_held_out for source in sources) else None,
        "copies_of": copies_of.digest if copies_of else None,
    }
    if splits is not None and any(source.n_left_out for source in sources):
        content["splits"] = sorted(splits)
    config = {
        "run_ids": [source.run_id for source in sources],
        "where": where,
        "deduplicate": deduplicate,
        "stages": sorted({stage for manifest in manifests for stage in stages_of(manifest)}),
    }
    return Merge(manifests, sources, [*inputs, *([suite] if suite else [])], {"merge": config}, digest_of(content))


def _met(con: Connection, run_ids: Sequence[str], templates: Collection[str]) -> list[str]:
    statement = (
        "SELECT DISTINCT template_id FROM episodes WHERE list_contains(?, run_id) AND list_contains(?, template_id)"
    )
    return sorted(row[0] for row in con.execute(statement, [list(run_ids), sorted(templates)]).fetchall())


def find(con: Connection, project: Path, merge: Merge) -> Path | None:
    """The directory of the newest finished run that holds exactly this merge, if its files are all there."""
    rows = con.execute(
        "SELECT run_id, output_dir FROM runs WHERE stage = ? AND status = 'done' AND digest = ? "
        "ORDER BY created_at DESC, run_id DESC",
        [STAGE, merge.digest],
    ).fetchall()
    wanted = {(item.role, item.run_id) for item in merge.inputs}
    for run_id, output_dir in rows:
        known = con.execute("SELECT role, upstream_run_id FROM lineage WHERE run_id = ?", [run_id]).fetchall()
        files = con.execute("SELECT path, kind, size_bytes FROM artifacts WHERE run_id = ?", [run_id]).fetchall()
        if set(known) == wanted and all(measure(project / path) == (kind, size) for path, kind, size in files):
            return project / output_dir
    return None


def write(
    merge: Merge, project: Path, runs_folder: Path, *, tags: Iterable[str] = (), notes: str = "", title: str = ""
) -> Path:
    """Write a merge as a run directory below ``runs_folder`` and return it (not yet registered).

    It holds ``trajectories.jsonl``, ``trajectories.parquet``, ``merge.json`` (kept and dropped per run) and a manifest
    whose inputs are the merged runs, role ``source``. Where these differ in benchmark, provider, model or seed, the
    manifest joins the names with ``+`` and takes the smallest seed.

    Raises:
        R2VError: if a source is gone or changed, or the disk is full.
    """
    names = {k: "+".join(sorted({getattr(m, k) for m in merge.manifests})) for k in ("benchmark", "provider", "model")}
    directory = _new_directory(runs_folder, title, names)
    try:
        return _fill(merge, directory, project, names, tags=tags, notes=notes)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _fill(
    merge: Merge, directory: Path, project: Path, names: dict[str, str], *, tags: Iterable[str], notes: str
) -> Path:
    began, created = time.monotonic(), utc_now()
    manifests = merge.manifests
    merged = write_merged(merge.sources, directory / EPISODES_JSONL)
    write_merged(merge.sources, directory / EPISODES_PARQUET)
    report = {"where": merge.config["merge"]["where"], "runs": merge.counts}
    write_atomic(directory / COUNTS, json_text(report) + "\n")
    seed = min(manifest.seed for manifest in manifests)
    n_success, n_steps = _totals(directory / EPISODES_PARQUET)
    counts = {name: sum(run[name] for run in merge.counts.values()) for name in ("kept", "dropped", "held_out")}
    if left_out := sum(source.n_left_out for source in merge.sources):
        counts["left_out"] = left_out
    artifacts = {"trajectories": EPISODES_JSONL, "episodes": EPISODES_PARQUET, "merge": COUNTS}
    manifest = RunManifest(
        run_id=directory.name,
        stage=STAGE,
        **names,
        seed=seed,
        partition=f"{names['benchmark']}:{names['model']}|{seed}",
        status="done",
        created_at=created,
        finished_at=utc_now(),
        output_dir=relative(directory, project),
        config=merge.config,
        config_digest=digest_of(merge.config),
        inputs=merge.inputs,
        digest=merge.digest,
        artifacts=artifacts,
        artifact_digests=digests(directory, artifacts),
        n_episodes=merged.n_episodes,
        n_success=n_success,
        n_steps=n_steps,
        counts={"sources": len(manifests), **counts},
        wall_time_s=round(time.monotonic() - began, 3),
        host=platform.node(),
        tags=sorted(tags),
        notes=notes,
    )
    write_manifest(manifest, directory)
    return directory


def merge_to_run(
    path: Path,
    project: Path,
    runs_folder: Path,
    *,
    run_ids: Sequence[str] | None = None,
    where: str | None = None,
    deduplicate: bool = True,
    stages: Sequence[str] | None = selection.STAGES,
    splits: Sequence[str] | None = selection.SPLITS,
    tags: Sequence[str] = (),
    notes: str = "",
) -> Path:
    """Merge runs, named by their ids or by a SQL condition on the table ``runs``, into a new run directory.

    Episodes of other stages and splits than these (None: any) are left out, with a warning.

    Raises:
        R2VError: as :func:`chosen_ids`, :func:`prepare` and :func:`write`.
    """
    with read_closed(path) as con:
        ids = chosen_ids(con, run_ids, where)
        ids, left_out = selection.choose_stages(con, ids, stages)
        left_out += selection.other_splits(con, ids, splits)
        merge = prepare(con, project, ids, where=where, deduplicate=deduplicate, splits=splits)
    if left_out:
        log.warning(selection.describe(left_out))
    return write(merge, project, runs_folder, tags=tags, notes=notes)


def _new_directory(folder: Path, title: str, names: dict[str, str]) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    short = [text if text.count("+") < _NAMES else f"{text.count('+') + 1}-{name}s" for name, text in names.items()]
    base = PREFIX + "_".join([*([title] if title else []), *short, stamp]).replace("/", "-")
    directory, n = folder / base, 1
    while True:
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            n += 1
            directory = folder / f"{base}-{n}"


def _totals(parquet: Path) -> tuple[int, int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(parquet, columns=["success", "n_steps"])
    return int(pc.sum(table["success"]).as_py() or 0), int(pc.sum(table["n_steps"]).as_py() or 0)
