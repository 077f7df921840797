"""Taking over the old world: a ``registry.json`` and its runs' JSONL episodes.

The old files are only read. Each run is converted into ``<project>/data/imported/<run_id>/`` with a manifest and
``trajectories.jsonl`` in today's form; a run directory that already holds a manifest is registered where it lies.
What today's form has no place for is kept: of a run in ``config.imported.entry`` of its manifest, of an episode in
``metadata.imported`` (per step under ``steps``). Values of secrets (keys such as ``api_key``) are left out.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from r2v_core.digest import digest_file, digest_of
from r2v_core.errors import R2VError
from r2v_core.migrations import FIELD, upgrade, versioned
from r2v_core.registry import legacy_fields as fields
from r2v_core.registry.episode_rows import EPISODES_JSONL
from r2v_core.registry.legacy_fields import Entry
from r2v_core.registry.values import describe, json_text, lines, relative
from r2v_core.runs.artifacts import digests
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest, write_manifest
from r2v_core.trajectory import Episode, episodes_digest

FOLDER = "imported"
_SHARD = re.compile(r"(trajectories|episodes)[-_.]\d+([-_.]of[-_.]\d+)?\.jsonl(\.gz)?")
_NOT_EPISODES = ("collection_log.jsonl", "training_log.jsonl", "evaluations.jsonl", "tasks.jsonl")


@dataclass
class ImportReport:
    """What an import did."""

    directories: list[Path] = field(default_factory=list)
    """Run directories to register."""
    episodes: dict[str, int] = field(default_factory=dict)
    """Episodes taken over, by run id."""
    problems: list[str] = field(default_factory=list)
    """Malformed episodes as ``file:line: what``, missing files, counts that differ; one line each."""


def convert(source: Path, project: Path) -> ImportReport:
    """Convert everything an old ``registry.json`` knows, and the run directories beside it that it does not know.

    Args:
        source: the file, or the directory that holds it.
        project: the project root; converted runs go below its ``data/imported``.

    Raises:
        R2VError: if the file is missing or is no registry; nothing is converted then.
    """
    source = source / "registry.json" if source.is_dir() else source
    report = ImportReport()
    entries = {entry.run_id: entry for entry in _entries(source, report)}
    listed = {directory.resolve() for entry in entries.values() if (directory := _locate(entry, source, project))}
    for directory in sorted(path for path in (source.parent / "runs").glob("*") if path.is_dir()):
        if directory.resolve() in listed or directory.name in entries or not _episode_files(directory):
            continue
        if not (directory / MANIFEST_NAME).exists():
            report.problems.append(f"{directory}: not in {source.name}; imported from its files alone")
        entries[directory.name] = Entry(directory.name, {"output_dir": str(directory)})
    folders: set[str] = set()
    for entry in entries.values():
        name = fields.folder_name(entry.run_id)
        if name in folders:
            report.problems.append(f"{source}: run '{entry.run_id}' has the folder name of another run; left out")
            continue
        folders.add(name)
        _convert_run(entry, source, project, project / "data" / FOLDER / name, report)
    return report


def _entries(source: Path, report: ImportReport) -> Iterator[Entry]:
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise R2VError(f"{source}: no such file; name an old registry.json") from None
    except (OSError, ValueError) as error:
        raise R2VError(f"{source}: not a JSON file ({error}); repair it first") from error
    runs = content.get("runs", content) if isinstance(content, dict) else content
    if isinstance(runs, dict):
        pairs = list(runs.items())
    elif isinstance(runs, list):
        pairs = [(None, run) for run in runs]
    else:
        raise R2VError(f"{source}: no runs in it; expected {{run_id: {{…}}}} or {{'runs': …}}")
    seen: set[str] = set()
    for position, (key, run) in enumerate(pairs):
        if not isinstance(run, dict):
            if isinstance(content, dict) and "runs" not in content:
                continue  # a fact about the file, such as its version
            report.problems.append(f"{source}: run {key or position}: not an object; left out")
            continue
        run_id = fields.run_id(run, key)
        if run_id is None:
            report.problems.append(f"{source}: run {position}: no run_id and no directory; left out")
        elif run_id in seen:
            report.problems.append(f"{source}: run '{run_id}' is listed twice; the first is taken")
        else:
            seen.add(run_id)
            yield Entry(run_id, fields.without_secrets(run))


def _locate(entry: Entry, source: Path, project: Path) -> Path | None:
    """The directory or file of an entry's episodes, looked for where old registries keep them."""
    tries = []
    if (named := entry.text("output_dir", "path", "dir", "run_dir", "directory", "data_path")) is not None:
        tries = [base / named for base in (source.parent, source.parent.parent, project)]
    tries.append(source.parent / "runs" / entry.run_id)
    return next((path for path in tries if _exists(path)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name no file can have: too long, or with a NUL in it
        return False


def _episode_files(place: Path) -> list[Path]:
    """The files of episodes at a place: one, gzipped or not, or its shards in order."""
    if place.is_file():
        return [place]
    for name in (EPISODES_JSONL, "episodes.jsonl"):
        for file in (place / name, place / f"{name}.gz"):
            if file.is_file():
                return [file]
    if shards := [path for path in sorted(place.glob("*.jsonl*")) if _SHARD.fullmatch(path.name)]:
        return shards
    others = [path for path in sorted(place.glob("*.jsonl")) if path.name not in _NOT_EPISODES]
    return others if len(others) == 1 else []


def _convert_run(entry: Entry, source: Path, project: Path, target: Path, report: ImportReport) -> None:
    place = _locate(entry, source, project)
    if place is not None and (place / MANIFEST_NAME).is_file():
        manifest = read_manifest(place)
        report.directories.append(place)
        report.episodes[manifest.run_id] = manifest.n_episodes
        return
    files = _episode_files(place) if place else []
    file = files[0] if files else None
    report.problems += [f"{source}: run '{entry.run_id}': {doubt}" for doubt in fields.doubts(entry)]
    if file is None:
        foreign = sorted(place.rglob("*.traj"))[:1] if place else []
        what = f"{foreign[0]} is a SWE-agent trajectory, which is not read" if foreign else "no episodes file"
        report.problems.append(f"{source}: run '{entry.run_id}': {what} at {place or 'any known place'}")
    contents = [digest_file(path) for path in files]
    origin = digest_of([json_text(entry.values), contents if len(contents) > 1 else contents[0] if contents else None])
    done = (target / MANIFEST_NAME).exists() and read_manifest(target)
    problems: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    counts = _write_episodes(entry, files, target / EPISODES_JSONL, problems)
    report.problems += problems
    report.directories.append(target)
    report.episodes[entry.run_id] = counts[0]
    expected = fields.count(entry)
    if file and expected is not None and expected != counts[0]:
        report.problems.append(f"{file}: {counts[0]} episodes imported, {source.name} says {expected}")
    if not (done and done.config.get("imported", {}).get("origin") == origin):
        manifest = _manifest(entry, source, file, target, project, counts, origin)
        write_manifest(manifest, target)


def _write_episodes(entry: Entry, files: list[Path], output: Path, problems: list[str]) -> tuple[int, int, int]:
    """Convert files; returns episodes, successes, steps. Without a file, what the index says of it."""
    if not files:
        n = fields.count(entry) or 0
        return n, round(n * (entry.number("success_rate") or 0.0)), 0
    n = n_success = n_steps = 0
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as out:
        for file, number, text in _all_lines(files, problems):
            try:
                episode = read_episode(text, entry, n + 1 if len(files) > 1 else number)
                line = json.dumps(versioned(episode), ensure_ascii=False).encode()
            except ValidationError as error:
                problems.append(f"{file}:{number}: {describe(error)}")
                continue
            except (ValueError, RecursionError) as error:
                problems.append(f"{file}:{number}: {error}")
                continue
            out.write(line + b"\n")
            n, n_success, n_steps = n + 1, n_success + episode.success, n_steps + len(episode.steps)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(output)
    return n, n_success, n_steps


def _all_lines(files: list[Path], problems: list[str]) -> Iterator[tuple[Path, int, bytes]]:
    for file in files:
        try:
            for number, _, text, _ in lines(file):
                yield file, number, text
        except (OSError, EOFError, zlib.error) as error:
            problems.append(f"{file}: can't be read to its end ({error}); the part before that is imported")


def read_episode(text: bytes, entry: Entry, number: int) -> Episode:
    """One line of a file of episodes, in today's form or an old one, as an episode of today that names its run.

    Raises:
        ValidationError: if it is no episode in either form (or ValueError, RecursionError).
    """
    record = from_json(text)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    ours = isinstance(record.get(FIELD, 1), int)
    try:
        episode = Episode.model_validate(upgrade("Episode", record, f"line {number}") if ours else record)
        metadata = fields.identity(entry) | episode.metadata
    except ValidationError:
        episode = Episode.model_validate(fields.episode(record, entry, number))
        metadata = episode.metadata
    strict = json.loads(json_text(metadata))
    return episode.model_copy(update={"metadata": strict})


def _manifest(
    entry: Entry,
    source: Path,
    file: Path | None,
    target: Path,
    project: Path,
    counts: tuple[int, int, int],
    origin: str,
) -> RunManifest:
    from r2v_core.runs.jsonl import JsonlStore

    identity = fields.identity(entry)
    benchmark, seed = fields.benchmark(entry), entry.integer("seed") or 0
    provider, model = identity["teacher_provider"], identity["teacher_model"]
    written = target / EPISODES_JSONL
    config: dict[str, Any] = {
        "imported": {
            "registry": relative(source, project),
            "episodes": relative(file, project) if file else None,
            "origin": origin,
            "entry": entry.values,
        }
    }
    artifacts = {"trajectories": EPISODES_JSONL} if file else {}
    return RunManifest(
        run_id=entry.run_id,
        stage="collect",
        benchmark=benchmark,
        provider=provider,
        model=model,
        seed=seed,
        partition=f"{benchmark}:{model}|{seed}",
        status=fields.status(entry),
        created_at=fields.created_at(entry, file or source),
        finished_at=fields.time_of(entry, "finished_at", "completed_at", "end_time", "ended_at"),
        output_dir=relative(target, project),
        config=json.loads(json_text(config)),
        config_digest=digest_of(json.loads(json_text(config))),
        digest=episodes_digest(JsonlStore(written, Episode)) if file else "",
        artifacts=artifacts,
        artifact_digests=digests(target, artifacts),
        n_episodes=counts[0],
        n_success=counts[1],
        n_steps=counts[2],
        cost_usd=entry.number("cost_usd", "total_cost_usd", "total_cost", "cost") or 0.0,
        wall_time_s=entry.number("wall_time_s", "duration_s", "duration", "elapsed_s") or 0.0,
        host=entry.text("host", "hostname") or "",
        slurm_job_id=entry.text("slurm_job_id", "job_id"),
        tags=fields.tags(entry),
        notes=entry.text("notes", "note", "description") or "",
    )
