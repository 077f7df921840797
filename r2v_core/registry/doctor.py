"""Does the registry still agree with the disk? Looks only; the repairs are separate functions."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2v_core.digest import digest_file
from r2v_core.errors import R2VError
from r2v_core.registry.database import Connection, read
from r2v_core.registry.episode_rows import EPISODES_JSONL, EPISODES_PARQUET
from r2v_core.registry.merge_files import MERGE_TMP
from r2v_core.registry.merged_run import PREFIX
from r2v_core.registry.register import ROOTS, find_run_dirs
from r2v_core.registry.values import relative
from r2v_core.runs.abandoned import end_partial
from r2v_core.runs.artifacts import digest, measure
from r2v_core.runs.locks import LOCK_NAME, is_alive
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest

QUIET_S = 3600.0
"""A run begun on another machine, without SLURM, is taken for dead when its directory is still for so long, seconds."""


@dataclass(frozen=True)
class Finding:
    """One disagreement."""

    kind: str
    """missing_files, changed_files, unregistered, outdated, broken_manifest, wrong_count, dead_run or
    interrupted_merge."""
    run_id: str | None
    path: str
    detail: str
    fix: str
    """What to do about it, a command where there is one."""


def diagnose(
    path: Path, project: Path, roots: Iterable[str | Path] = ROOTS, *, check_digests: bool = True
) -> list[Finding]:
    """Everything that is wrong, worst kinds first.

    Args:
        path: the registry file.
        project: the project root.
        roots: folders below it to search for runs.
        check_digests: read every artifact of finished runs again and compare its digest; sizes are always compared.
    """
    roots = list(roots)
    with read(path) as con:
        runs, artifacts = _rows(con, None)
    findings = list(_rows_without_files(project, runs, artifacts, check_digests))
    seen = dict.fromkeys([*find_run_dirs(project, roots), *(project / row[1] for row in runs.values())])
    for directory in seen:
        if (directory / MANIFEST_NAME).exists():
            findings += _directory(directory, project, runs)
    findings += _interrupted_merges(project, roots)
    return findings


def run_problems(path: Path, project: Path, digests: Mapping[str, str]) -> dict[str, list[str]]:
    """What is wrong with each of these runs; only sizes of files are compared.

    Args:
        path: the registry file.
        project: the project root.
        digests: run id → the digest that the run is believed to have.

    Returns:
        run id → one line a problem, none where the registry knows the run with this digest and its files are there.
    """
    with read(path) as con:
        runs, artifacts = _rows(con, list(digests))
        known = dict(
            con.execute("SELECT run_id, digest FROM runs WHERE list_contains(?, run_id)", [list(digests)]).fetchall()
        )
    problems: dict[str, list[str]] = {run_id: [] for run_id in digests}
    for finding in _rows_without_files(project, runs, artifacts, False):
        problems[str(finding.run_id)].append(f"{finding.path}: {finding.detail}")
    for run_id, expected in digests.items():
        if run_id not in known:
            problems[run_id].append("the registry does not know the run: r2v registry sync")
            continue
        directory = project / runs[run_id][1]
        if (directory / MANIFEST_NAME).exists():
            problems[run_id] += [f"{f.path}: {f.detail}" for f in _directory(directory, project, runs)]
        if known[run_id] != expected:
            problems[run_id].append(f"the registry has digest {known[run_id][:12]}, {expected[:12]} was expected")
    return problems


def _rows(con: Connection, run_ids: list[str] | None) -> tuple[dict[str, tuple[Any, ...]], list[tuple[Any, ...]]]:
    """(run id → run_id, output_dir, status, manifest_digest, n_episodes, episodes found; artifacts) of some or all."""
    which, values = ("", []) if run_ids is None else ("WHERE list_contains(?, run_id)", [run_ids])
    runs = con.execute(
        "SELECT run_id, output_dir, status, manifest_digest, n_episodes, "
        f"(SELECT count(*) FROM episodes WHERE episodes.run_id = runs.run_id) FROM runs {which} ORDER BY run_id",
        values,
    ).fetchall()
    artifacts = con.execute(
        f"SELECT run_id, name, path, kind, size_bytes, digest FROM artifacts {which} ORDER BY run_id, name", values
    ).fetchall()
    return {row[0]: row for row in runs}, artifacts


def _rows_without_files(
    project: Path, runs: dict[str, tuple[Any, ...]], artifacts: list[tuple[Any, ...]], check_digests: bool
) -> Iterator[Finding]:
    gone = set()
    for run_id, output_dir, *_ in runs.values():
        if not (project / output_dir / MANIFEST_NAME).exists():
            gone.add(run_id)
            yield Finding(
                "missing_files", run_id, output_dir, "the run directory or its manifest is gone",
                "bring it back, or forget the run: r2v registry rebuild",
            )  # fmt: skip
    for run_id, name, where, kind, size, known in artifacts:
        if run_id in gone or kind == "missing":
            continue
        path = project / where
        now_kind, now_size = measure(path)
        if now_kind == "missing":
            yield Finding("missing_files", run_id, where, f"artifact '{name}' is gone", "materialise the run again")
        elif known is not None and (now_kind, now_size) != (kind, size):
            detail = f"artifact '{name}' has {now_size} bytes, {size} were registered"
            yield Finding("changed_files", run_id, where, detail, _CHANGED)
        elif known is not None and check_digests and digest(path) != known:
            detail = f"artifact '{name}' no longer matches its digest {known[:12]}"
            yield Finding("changed_files", run_id, where, detail, _CHANGED)


_CHANGED = "a finished run is immutable: bring the file back, or materialise the run again"


def _directory(directory: Path, project: Path, runs: dict[str, tuple[Any, ...]]) -> Iterator[Finding]:
    where = relative(directory, project)
    try:
        manifest = read_manifest(directory)
    except R2VError as error:
        yield Finding("broken_manifest", None, where, str(error), "run the stage again")
        return
    run_id = manifest.run_id
    fix = f"r2v registry register {where}"
    row = runs.get(run_id)
    if row is None:
        yield Finding("unregistered", run_id, where, "a run on disk that the registry does not know", fix)
    elif row[1] != where:
        yield Finding("unregistered", run_id, where, f"run id taken: the registry knows it in {row[1]}", "remove one")
        return
    elif row[3] != digest_file(directory / MANIFEST_NAME):
        yield Finding("outdated", run_id, where, "the manifest changed after it was registered", fix)
    elif manifest.status == "done" and _has_episodes(directory) and row[4] != row[5]:
        detail = f"the manifest counts {row[4]} episodes, {row[5]} are readable in the file"
        yield Finding("wrong_count", run_id, where, detail, "look at the file; r2v registry rebuild names broken lines")
    if manifest.status == "running" and is_dead(directory, manifest):
        yield Finding(
            "dead_run", run_id, where, "running according to its manifest, but no process works on it",
            "run its stage again to resume it, or: r2v registry doctor --mark-partial",
        )  # fmt: skip


def _has_episodes(directory: Path) -> bool:
    return (directory / EPISODES_JSONL).exists() or (directory / EPISODES_PARQUET).exists()


def is_dead(directory: Path, manifest: RunManifest) -> bool:
    """Whether nobody works on a run that calls itself running.

    Its writer holds a kernel lock in the run directory. A SLURM job is also asked for at ``squeue``; where neither can
    tell (another machine, no SLURM), the run is dead when its directory was still for an hour.
    """
    if (directory / LOCK_NAME).exists() and is_alive(directory):
        return False
    if manifest.slurm_job_id and shutil.which("squeue"):
        command = ["squeue", "--noheader", "--jobs", manifest.slurm_job_id, "--format", "%T"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return not answer.stdout.strip()
    if manifest.host in ("", platform.node()):
        return True
    newest = max((file.lstat().st_mtime for file in directory.iterdir()), default=0.0)
    return time.time() - newest > QUIET_S


def mark_partial(directory: Path) -> RunManifest:
    """Set a dead run's status to ``partial``, so that its episodes can be used and its stage can take it up.

    Raises:
        R2VError: if the run is not a dead one any more.
    """
    marked = end_partial(directory, "its process ended without a message; marked partial by r2v registry doctor")
    if marked is not None:
        return marked
    manifest = read_manifest(directory)
    if manifest.status != "running":
        raise R2VError(f"run '{manifest.run_id}' is {manifest.status}, not running; nothing to mark")
    raise R2VError(f"{directory}: another process is still writing this run; wait for it or end it")


def _interrupted_merges(project: Path, roots: Iterable[str | Path]) -> Iterator[Finding]:
    for root in roots:
        for file in sorted((project / root).rglob(f".*{MERGE_TMP}")):
            yield Finding(
                "interrupted_merge",
                None,
                relative(file, project),
                "an unfinished merged file",
                "delete it and merge again",
            )
        for directory in sorted((project / root).rglob(f"{PREFIX}*/")):
            if directory.is_dir() and not (directory / MANIFEST_NAME).exists():
                yield Finding(
                    "interrupted_merge", directory.name, relative(directory, project),
                    "a merge that ended before it wrote its manifest", "delete the directory and merge again",
                )  # fmt: skip
