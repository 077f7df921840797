"""What old runs and episodes call things, and how that is written today."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

from r2v_core.config.secrets import is_secret
from r2v_core.digest import DIGEST_HEX, digest_of
from r2v_core.registry.legacy_times import parse_time
from r2v_core.runs.manifest import Status
from r2v_core.trajectory import Actor, Episode, Step

_LONGEST_NAME = 200
"""Bytes; file systems allow 255."""
_STAMP = re.compile(r"(\d{8}T\d{6})")
_TEXT_KEYS = ("raw_text", "text", "action", "content", "command", "state", "observation", "value")
_STATUS: dict[str, Status] = {
    "done": "done", "complete": "done", "completed": "done", "success": "done", "succeeded": "done", "finished": "done",
    "ok": "done", "failed": "failed", "failure": "failed", "error": "failed", "crashed": "failed",
    "running": "partial", "in_progress": "partial", "pending": "partial", "partial": "partial",
    "interrupted": "partial", "cancelled": "partial", "incomplete": "partial",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One run of the old index."""

    run_id: str
    values: dict[str, Any]

    def find(self, *names: str) -> Any:
        """The first of these fields that has a value, in the entry or in its ``metadata`` or ``config``."""
        nested = [self.values.get(key) for key in ("metadata", "config")]
        for place in (self.values, *(part for part in nested if isinstance(part, dict))):
            for name in names:
                if place.get(name) is not None:
                    return place[name]
        return None

    def text(self, *names: str) -> str | None:
        """The first of these fields as text."""
        value = self.find(*names)
        return None if value is None or isinstance(value, (dict, list)) else str(value)

    def number(self, *names: str) -> float | None:
        """The first of these fields as a finite number."""
        return _finite(self.find(*names))

    def integer(self, *names: str) -> int | None:
        """The first of these fields as a 64-bit integer."""
        return _int64(self.find(*names))


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _int64(value: Any) -> int | None:
    number = _finite(value)
    return int(value) if number is not None and number == int(number) and abs(number) < 2**63 else None


def run_id(run: dict[str, Any], key: str | None) -> str | None:
    """An entry's run id: its own field, else its key in the index, else the name of its directory."""
    for name in ("run_id", "id", "name"):
        if isinstance(run.get(name), str) and run[name].strip():
            return str(run[name])
    if key:
        return key
    place = run.get("output_dir") or run.get("path")
    return Path(place).name or None if isinstance(place, str) else None


def folder_name(run_id: str) -> str:
    """A run id as a directory name."""
    name = re.sub(r"[/\\\x00-\x1f\x7f]", "-", run_id)
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name.encode()[: _LONGEST_NAME - DIGEST_HEX - 1].decode(errors='ignore')}-{digest_of(run_id)}"
    return f"_{name}" if name.startswith(".") else name


def without_secrets(value: Any) -> Any:
    """A JSON value without the values of keys that name secrets."""
    if isinstance(value, dict):
        return {k: "(removed)" if is_secret(k) and v else without_secrets(v) for k, v in value.items()}
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def benchmark(entry: Entry) -> str:
    """An entry's benchmark, else the first part of its run id."""
    return entry.text("benchmark", "benchmark_name", "env", "dataset") or entry.run_id.split("_")[0]


def identity(entry: Entry) -> dict[str, str]:
    """The metadata that every episode carries."""
    return {
        "run_id": entry.run_id,
        "teacher_provider": entry.text("teacher_provider", "provider") or "unknown",
        "teacher_model": entry.text("teacher_model", "model", "model_name") or "unknown",
    }


def count(entry: Entry) -> int | None:
    """Episodes that the index claims."""
    return entry.integer(
        "n_episodes", "num_episodes", "episodes", "total_episodes", "n_trajectories", "num_trajectories"
    )


def status(entry: Entry) -> Status:
    """An entry's status in today's words; ``done`` where it says nothing. Nothing old is still running."""
    return _STATUS.get((entry.text("status", "state") or "done").lower(), "partial")


def tags(entry: Entry) -> list[str]:
    """Tags as a sorted list; a text is split at commas."""
    value = entry.find("tags", "tag")
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return sorted({str(part).strip() for part in parts if str(part).strip()})


CREATED = ("created_at", "started_at", "start_time", "timestamp", "created", "date")
FINISHED = ("finished_at", "completed_at", "end_time", "ended_at")


def time_of(entry: Entry, *names: str) -> str | None:
    """The first of these fields as ISO 8601 in UTC; None if it is no time (see ``legacy_times``)."""
    moment = parse_time(entry.find(*names))
    return f"{moment.isoformat(timespec='microseconds')}+00:00" if moment else None


def created_at(entry: Entry, file: Path) -> str:
    """When a run began: its entry, else the stamp in its id, else the file's time."""
    found = time_of(entry, *CREATED)
    if found is None and (stamp := _STAMP.search(entry.run_id)):
        try:
            found = f"{datetime.strptime(stamp[1], '%Y%m%dT%H%M%S').isoformat()}+00:00"
        except ValueError:
            found = None
    return found or datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).isoformat()


def doubts(entry: Entry) -> list[str]:
    """What an entry says that is not understood, and what is taken instead."""
    found = []
    for names, instead in ((CREATED, "the time in its id, or its file's, is taken"), (FINISHED, "none is taken")):
        value = entry.find(*names)
        if value is not None and parse_time(value) is None:
            found.append(f"{names[0]} {value!r} is not a time that can be read (write ISO 8601); {instead}")
    seed = entry.find("seed")
    if seed is not None and _int64(seed) is None:
        found.append(f"seed {seed!r} is not a whole number; 0 is used instead")
    return found


def foreign_format(record: dict[str, Any]) -> str | None:
    """The name of another tool's format that an episode is in, if it is in one that is not read."""
    steps = record.get("trajectory")
    if isinstance(steps, list) and steps and isinstance(steps[0], dict) and {"response", "thought"} & set(steps[0]):
        return "a SWE-agent trajectory (.traj)"
    for key, name in (("messages", "chat format (messages)"), ("conversations", "ShareGPT format (conversations)")):
        if isinstance(record.get(key), list) and not isinstance(record.get("steps"), list):
            return name
    return None


def _take(record: dict[str, Any], *names: str) -> Any:
    """Remove and return the first of these fields that has a value."""
    for name in names:
        if record.get(name) is not None:
            return record.pop(name)
    return None


def _as_text(value: Any) -> tuple[str | None, Any]:
    """(text, what is left over) of a text or of an object that holds one."""
    if isinstance(value, dict):
        for key in _TEXT_KEYS:
            if isinstance(value.get(key), str):
                rest = {k: v for k, v in value.items() if k != key}
                return value[key], rest or None
        return None, value
    return (None, None) if value is None else (value if isinstance(value, str) else str(value), None)


def _verdict(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "1", "0"):
        return value.lower() in ("true", "yes", "1")
    raise ValueError("success: not a verdict; write true or false")


def _step(old: Any, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(today's step, fields it has no place for)."""
    if not isinstance(old, dict):
        raise ValueError(f"steps.{index}: not an object")
    record = dict(old)
    action, action_rest = _as_text(_take(record, "action", "raw_action", "action_text"))
    if action is None:
        raise ValueError(f"steps.{index}.action: not a text")
    seen = _take(record, "observation", "obs", "state")
    if isinstance(seen, dict) and set(seen) <= {"state", "feedback"} and isinstance(seen.get("state"), str):
        observation, observation_rest = seen, None
    else:
        text, observation_rest = _as_text(seen)
        observation = {"state": text or ""}
    actor = record.get("actor")
    step: dict[str, Any] = {"index": index, "observation": observation, "action": action, "actor": "teacher"}
    if actor in get_args(Actor):
        step["actor"] = record.pop("actor")
    for name, old_names in _STEP_NUMBERS.items():
        value = _finite(next((record[n] for n in old_names if record.get(n) is not None), None))
        if value is not None:
            _take(record, *old_names)
            step[name] = int(value) if name.startswith("tokens") else value
    for name in ("executed", "progress"):
        if isinstance(record.get(name), bool):
            step[name] = record.pop(name)
    if record.get("index") == index:
        record.pop("index")
    rest = record | ({"action": action_rest} if action_rest else {})
    rest |= {"observation": observation_rest} if observation_rest else {}
    Step.model_validate(step)
    return step, rest


_STEP_NUMBERS = {
    "tokens_in": ("tokens_in", "prompt_tokens", "input_tokens"),
    "tokens_out": ("tokens_out", "completion_tokens", "output_tokens"),
    "cost": ("cost",),
    "cost_usd": ("cost_usd",),
    "latency_s": ("latency_s", "latency"),
}


def episode(old: dict[str, Any], entry: Entry, number: int) -> dict[str, Any]:
    """An old episode in today's form; what has no place there goes to ``metadata.imported``.

    Raises:
        ValueError: if it has no list of steps, a step has no action, or there is no verdict.
    """
    if (name := foreign_format(old)) is not None:
        raise ValueError(f"{name} can't be read; write 'steps' with an action each, and 'success'")
    record = dict(old)
    metadata = dict(found) if isinstance(found := record.pop("metadata", None), dict) else {}
    given = _take(record, "steps", "trajectory", "history")
    if not isinstance(given, list):
        raise ValueError("steps: not a list of steps")
    steps, rests = [], {}
    for index, step in enumerate(given):
        new, rest = _step(step, index)
        steps.append(new)
        if rest:
            rests[str(index)] = rest
    success = _take(record, "success", "solved", "is_success")
    verdict = _verdict(metadata.get("success") if success is None else success)
    task_id = _take(record, "task_id", "task", "task_name", "instance_id")
    goal, goal_rest = _as_text(_take(record, "goal", "instruction", "task_description"))
    score = _finite(record.get("score"))
    z = record.get("perturbation_seed", metadata.get("perturbation_seed"))
    new_episode: dict[str, Any] = {
        "episode_id": str(_take(record, "episode_id", "id", "trajectory_id") or f"{entry.run_id}-{number}"),
        "benchmark": str(_take(record, "benchmark") or metadata.get("benchmark") or benchmark(entry)),
        "task_id": _plain(task_id),
        "template_id": _plain(_take(record, "template_id") or metadata.get("template_id") or task_id),
        "goal": goal or "",
        "steps": steps,
        "success": verdict,
        "score": float(verdict) if score is None else score,
        "truncated": record.get("truncated") is True,
        "perturbation_seed": _int64(z),
        "seed": _int64(record.get("seed", metadata.get("seed", entry.find("seed")))) or 0,
    }
    for name in ("score", "truncated", "perturbation_seed", "seed"):
        if name in record and record[name] == new_episode[name]:
            record.pop(name)
    rest = record | ({"goal": goal_rest} if goal_rest else {}) | ({"steps": rests} if rests else {})
    rest |= {"task": task_id} if isinstance(task_id, (dict, list)) else {}
    new_episode["metadata"] = identity(entry) | metadata | ({"imported": rest} if rest else {})
    assert set(new_episode) <= set(Episode.model_fields)
    return new_episode


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[k] for k in ("task_id", "id", "name") if value.get(k) is not None), "unknown")
    return "unknown" if value is None or isinstance(value, list) else str(value)
