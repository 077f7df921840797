"""From a run's file of episodes to rows of the table ``episodes``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from r2v_core.migrations import read_record
from r2v_core.registry.rows import EPISODES
from r2v_core.registry.values import describe, lines, relative, to_table
from r2v_core.runs.parquet import read_parquet
from r2v_core.trajectory import Episode

EPISODES_JSONL = "trajectories.jsonl"
EPISODES_PARQUET = "trajectories.parquet"


def episodes_table(run_id: str, run_dir: Path, project: Path, problems: list[str]) -> pa.Table:
    """All episodes of a run; lines that are none are added to ``problems``."""
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
            chunks += to_table(rows, EPISODES, path).to_batches()
            rows = []
    chunks += to_table(rows, EPISODES, path).to_batches()
    return pa.Table.from_batches(chunks, EPISODES)


def _too_large(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


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
