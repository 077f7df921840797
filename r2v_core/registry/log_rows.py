"""From a run's logs to rows of the tables ``metrics``, ``evaluations`` and ``slurm_jobs``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from r2v_core.registry.values import as_integer, as_number, as_text, json_text, lines, timestamp
from r2v_core.runs.manifest import RunManifest

METRICS = "training_log.jsonl"
EVALUATIONS = "evaluations.jsonl"
SLURM_JOB = "slurm_job.json"


def objects(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, JSON object) of each line that is one; the others are added to ``problems``."""
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


def metric_rows(run_id: str, path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """One row for each number of each line; values that are no numbers stay in the log file only."""
    for number, record in objects(path, problems):
        step = as_integer(record.get("step", record.get("epoch")))
        for name, value in record.items():
            if name != "step" and (value is None or isinstance(value, (int, float))):
                yield {"run_id": run_id, "line": number, "step": step, "name": name, "value": as_number(value)}


def evaluation_rows(run_id: str, path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """One row a line."""
    for number, record in objects(path, problems):
        yield {
            "run_id": run_id,
            "line": number,
            **{name: as_text(record.get(name)) for name in ("method", "benchmark", "condition", "metric")},
            **{name: as_number(record.get(name)) for name in ("value", "ci_low", "ci_high")},
            **{name: as_integer(record.get(name)) for name in ("seed", "n")},
        }


def slurm_rows(manifest: RunManifest, path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """One row a submission, else the job id of the manifest alone."""
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
        job_id = as_text(one.get("job_id")) or (manifest.slurm_job_id if one is job else None)
        if job_id is None:
            continue
        yield {
            "job_id": job_id,
            "run_id": manifest.run_id,
            **{
                name: as_text(one.get(name)) for name in ("name", "state", "partition", "account", "nodes", "exit_code")
            },
            **{name: as_integer(one.get(name)) for name in ("cpus", "gpus")},
            **{name: timestamp(as_text(one.get(name)), path) for name in ("submitted_at", "started_at", "ended_at")},
            **{
                name: as_number(one.get(name))
                for name in ("queue_wait_s", "elapsed_s", "max_memory_mb", "cpu_efficiency")
            },
            "detail": json_text(one) if one else None,
        }
