"""Checkpoints of a training that can be resumed, and its log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import is_main
from r2v_core.training.workers import wait_for_everyone

CHECKPOINTS = "checkpoints"
COMPLETE = "complete.json"
"""Written into a checkpoint after everything else; a checkpoint without it was cut short and is ignored."""
LOG_NAME = "training_log.jsonl"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None. Those that were cut short while being written are not considered."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def prepare_checkpoints(run_dir: Path) -> Path | None:
    """Delete half-written checkpoints, cut the training log back to the newest whole one, and return that."""
    folder = run_dir / CHECKPOINTS
    resume = last_checkpoint(folder)
    if is_main():
        for path in folder.glob("checkpoint-*"):
            if not (path / COMPLETE).exists():
                shutil.rmtree(path)
        step = int(resume.name.rpartition("-")[2]) if resume else 0
        log = run_dir / LOG_NAME
        if log.exists():
            kept = [line for line in read_log(log) if line["step"] <= step]
            write_atomic(log, "".join(json.dumps(line) + "\n" for line in kept))
    wait_for_everyone()
    return resume


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``training_log.jsonl``; a last line that a killed process left half-written is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
