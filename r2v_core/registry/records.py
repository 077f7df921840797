"""From a run directory to the registry's rows. Reads files only; knows nothing of the registry file."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError
from pydantic_core import from_json

from r2v_core.digest import digest_file, digest_files
from r2v_core.errors import R2VError
from r2v_core.migrations import read_record
from r2v_core.registry.rows import (
    ARTIFACTS,
    EPISODES,
    EVALUATION_ROWS,
    LINEAGE,
    METRICS_ROWS,
    RUNS,
    SLURM_JOBS,
)
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.trajectory import Episode

EPISODES_JSONL = "trajectories.jsonl"
EPISODES_PARQUET = "trajectories.parquet"
METRICS = "training_log.jsonl"
EVALUATIONS = "evaluations.jsonl"
SLURM_JOB = "slurm_job.json"
DATA_FILES = (EPISODES_JSONL, EPISODES_PARQUET, METRICS, EVALUATIONS, SLURM_JOB)
BOM = b"\xef\xbb\xbf"
"""What some editors put in front of a text file."""
FINAL = ("done", "failed")
"""A run with one of these statuses is not written any more."""


@dataclass
class RunRows:
    """Everything the registry stores about one run, by table."""

    manifest: RunManifest
    """As on disk, but with ``output_dir`` where the run really lies."""
    manifest_digest: str
    tables: dict[str, pa.Table]
    problems: list[str] = field(default_factory=list)
    """Lines that were passed over, as ``file:line: what is wrong``."""


def relative(path: Path, project: Path) -> str:
    """``path`` as the registry stores it: below the project if it lies there, else absolute."""
    path, project = path.resolve(), project.resolve()
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.as_posix()


def read_run(run_dir: Path, project: Path) -> RunRows:
    """All rows of one run, read from its manifest and the data files beside it.

    Raises:
        R2VError: for a missing or broken manifest, naming it. Broken data lines are passed over and reported.
    """
    manifest_path = run_dir / MANIFEST_NAME
    digest = digest_file(manifest_path) if manifest_path.exists() else ""
    manifest = read_manifest(run_dir).model_copy(update={"output_dir": relative(run_dir, project)})
    problems: list[str] = []
    tables = {
        "runs": _table([_run_row(manifest, digest, manifest_path)], RUNS, manifest_path),
        "lineage": _table(_lineage_rows(manifest), LINEAGE, manifest_path),
        "episodes": _episodes_table(manifest.run_id, run_dir, project, problems),
        "metrics": _table(_metric_rows(manifest.run_id, run_dir / METRICS, problems), METRICS_ROWS, run_dir / METRICS),
        "evaluations": _table(
            _evaluation_rows(manifest.run_id, run_dir / EVALUATIONS, problems), EVALUATION_ROWS, run_dir / EVALUATIONS
        ),
        "slurm_jobs": _table(_slurm_rows(manifest, run_dir / SLURM_JOB, problems), SLURM_JOBS, run_dir / SLURM_JOB),
        "artifacts": _table(_artifact_rows(manifest, run_dir, project), ARTIFACTS, manifest_path),
    }
    return RunRows(manifest, digest, tables, problems)


def _table(rows: Iterable[dict[str, Any]], schema: pa.Schema, source: Path) -> pa.Table:
    try:
        return pa.Table.from_pylist(list(rows), schema)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
        raise R2VError(f"{source}: a value the registry can't hold ({error})") from error


def timestamp(text: str | None, source: Path) -> datetime | None:
    """An ISO 8601 time as naive UTC; a time without a zone is taken as UTC.

    Raises:
        R2VError: if it is no time, naming the file.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise R2VError(f"{source}: '{text}' is not a time; write ISO 8601, e.g. 2026-01-31T12:00:00+00:00") from None
    return moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment


def _run_row(manifest: RunManifest, digest: str, source: Path) -> dict[str, Any]:
    row = manifest.model_dump(exclude={"inputs", "artifacts"})
    created = timestamp(manifest.created_at, source)
    if created is None:
        raise R2VError(f"{source}: created_at is empty; write the time the run began")
    return row | {
        "created_at": created,
        "finished_at": timestamp(manifest.finished_at, source),
        "config": json_text(manifest.config),
        "counts": json_text(manifest.counts),
        "success_rate": manifest.success_rate,
        "manifest_digest": digest,
        "manifest": json_text(manifest.model_dump(mode="json", exclude={"config"})),
    }


def json_text(value: Any) -> str:
    """``value`` as strict JSON: numbers that JSON lacks (NaN, infinities) become text."""
    return json.dumps(_strict(value), ensure_ascii=False, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _lineage_rows(manifest: RunManifest) -> Iterator[dict[str, Any]]:
    for item in manifest.inputs:
        yield {
            "run_id": manifest.run_id,
            "role": item.role,
            "upstream_run_id": item.run_id,
            "upstream_digest": item.digest,
            "upstream_path": item.path,
        }


def _episodes_table(run_id: str, run_dir: Path, project: Path, problems: list[str]) -> pa.Table:
    jsonl, parquet = run_dir / EPISODES_JSONL, run_dir / EPISODES_PARQUET
    path = jsonl if jsonl.is_file() or not parquet.is_file() else parquet
    where = relative(path, project)
    chunks: list[pa.RecordBatch] = []
    rows: list[dict[str, Any]] = []
    found = _jsonl_episodes(path, problems) if path == jsonl else _parquet_episodes(path)
    for line, offset, length, episode in found:
        place = {"run_id": run_id, "line": line, "path": where, "byte_offset": offset, "byte_length": length}
        row = _episode_row(episode, run_id) | place
        if huge := [name for name, value in row.items() if name != "action_key" and _too_large(value)]:
            problems.append(f"{path}:{line}: {huge[0]} needs more than 64 bits")
            continue
        rows.append(row)
        if len(rows) == 1000:
            chunks += _table(rows, EPISODES, path).to_batches()
            rows = []
    chunks += _table(rows, EPISODES, path).to_batches()
    return pa.Table.from_batches(chunks, EPISODES)


def _too_large(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def lines(path: Path) -> Iterator[tuple[int, int, bytes, bool]]:
    """(1-based number, byte offset, text without its newline, whether it has one) of each line that is not blank.

    What does not exist or is no ordinary file (a FIFO would be waited for) has no lines.
    """
    if not path.is_file():
        return
    offset = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            text = line.rstrip(b"\n")
            mark = len(BOM) if number == 1 and text.startswith(BOM) else 0
            if text[mark:].strip():
                yield number, offset + mark, text[mark:], line.endswith(b"\n")
            offset += len(line)


def _jsonl_episodes(path: Path, problems: list[str]) -> Iterator[tuple[int, int, int, Episode]]:
    for number, offset, text, ended in lines(path):
        try:
            yield number, offset, len(text), read_record(Episode, text, f"{path}:{number}")
        except ValidationError as error:
            if ended:  # else: half a line, still being written
                problems.append(f"{path}:{number}: {describe(error)}")


def _parquet_episodes(path: Path) -> Iterator[tuple[int, None, None, Episode]]:
    for number, episode in enumerate(read_parquet(path, Episode), start=1):
        yield number, None, None, episode


def describe(error: ValidationError) -> str:
    """What is wrong with a record, in one line without its contents."""
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"


def _episode_row(episode: Episode, run_id: str) -> dict[str, Any]:
    steps, metadata = episode.steps, episode.metadata
    row: dict[str, Any] = {
        name: None if metadata.get(name) is None else str(metadata[name])
        for name in ("split", "family", "teacher_provider", "teacher_model", "method")
    }
    action_hash = episode.action_hash
    source_run, source_episode = _source(episode, run_id)
    return row | {
        "episode_id": episode.episode_id,
        "benchmark": episode.benchmark,
        "task_id": episode.task_id,
        "template_id": episode.template_id,
        "success": episode.success,
        "score": episode.score,
        "truncated": episode.truncated,
        "n_steps": len(steps),
        "n_teacher_steps": sum(step.actor == "teacher" for step in steps),
        "cost": float(episode.cost),
        "cost_usd": float(sum(step.cost_usd for step in steps)),
        "tokens_in": sum(step.tokens_in for step in steps),
        "tokens_out": sum(step.tokens_out for step in steps),
        "latency_s": float(sum(step.latency_s for step in steps)),
        "action_hash": action_hash,
        "action_key": int(action_hash[:16], 16),
        "perturbation_seed": episode.perturbation_seed,
        "perturbations": sorted({f"{p.family}/{p.operator}" for step in steps for p in step.perturbations}),
        "seed": episode.seed,
        "source_run_id": source_run,
        "source_episode_id": source_episode,
    }


def _source(episode: Episode, run_id: str) -> tuple[str | None, str | None]:
    """(run, episode) that an episode of ``run_id`` was perturbed or copied from; nothing where it was played there."""
    metadata = episode.metadata
    if metadata.get("source_run_id") is not None:
        return str(metadata["source_run_id"]), str(metadata.get("source_episode_id") or episode.episode_id)
    played_in = metadata.get("run_id")
    return (None, None) if played_in in (None, run_id) else (str(played_in), episode.episode_id)


def _objects(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, _, text, ended in lines(path):
        try:
            value = from_json(text)
        except ValueError as error:
            if ended:
                problems.append(f"{path}:{number}: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            problems.append(f"{path}:{number}: not a JSON object")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, (int, float)) and math.isfinite(value) and value == int(value) and abs(value) < 2**63:
        return int(value)
    return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _metric_rows(run_id: str, path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """One row for each number of each line; values that are no numbers stay in the log file only."""
    for number, record in _objects(path, problems):
        step = _integer(record.get("step", record.get("epoch")))
        for name, value in record.items():
            if name != "step" and (value is None or isinstance(value, (int, float))):
                yield {"run_id": run_id, "line": number, "step": step, "name": name, "value": _number(value)}


def _evaluation_rows(run_id: str, path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    for number, record in _objects(path, problems):
        yield {
            "run_id": run_id,
            "line": number,
            **{name: _text(record.get(name)) for name in ("method", "benchmark", "condition", "metric")},
            **{name: _number(record.get(name)) for name in ("value", "ci_low", "ci_high")},
            **{name: _integer(record.get(name)) for name in ("seed", "n")},
        }


def _slurm_rows(manifest: RunManifest, path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    job: dict[str, Any] = {}
    if path.is_file():
        try:
            job = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(job, dict):
                raise ValueError("not a JSON object")
        except ValueError as error:
            problems.append(f"{path}: {error}")
            job = {}
    attempts = job.get("attempts")  # one a submission; a file without it describes one job
    for one in [a for a in attempts if isinstance(a, dict)] if isinstance(attempts, list) else [job]:
        job_id = _text(one.get("job_id")) or (manifest.slurm_job_id if one is job else None)
        if job_id is None:
            continue
        yield {
            "job_id": job_id,
            "run_id": manifest.run_id,
            **{name: _text(one.get(name)) for name in ("name", "state", "partition", "account", "nodes", "exit_code")},
            **{name: _integer(one.get(name)) for name in ("cpus", "gpus")},
            **{name: timestamp(_text(one.get(name)), path) for name in ("submitted_at", "started_at", "ended_at")},
            **{
                name: _number(one.get(name))
                for name in ("queue_wait_s", "elapsed_s", "max_memory_mb", "cpu_efficiency")
            },
            "detail": json_text(one) if one else None,
        }


def _artifact_rows(manifest: RunManifest, run_dir: Path, project: Path) -> Iterator[dict[str, Any]]:
    named = dict(manifest.artifacts)
    named |= {name: name for name in DATA_FILES if name not in named.values() and (run_dir / name).exists()}
    for name, below in named.items():
        path = run_dir / below
        kind, size = measure(path)
        yield {
            "run_id": manifest.run_id,
            "name": name,
            "path": relative(path, project),
            "kind": kind,
            "size_bytes": size,
            "digest": digest(path) if manifest.status in FINAL else None,
        }


def measure(path: Path) -> tuple[str, int | None]:
    """('file' | 'directory' | 'missing', size in bytes)."""
    if path.is_file():
        return "file", path.stat().st_size
    if path.is_dir():
        return "directory", sum(file.stat().st_size for file in _files(path))
    return "missing", None


def digest(path: Path) -> str | None:
    """Digest of a file's bytes or of a directory's files; None if there is nothing."""
    if path.is_file():
        return digest_file(path)
    return digest_files(_files(path), path) if path.is_dir() else None


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
