"""One shard of a run: a process that makes its part of the records, mostly an element of a cluster's job array.

A run's chunks are dealt out, every n-th one to a shard. Each shard appends what it makes to a file of its own in the
run directory and ends; the run goes on being ``running``. The stage's ordinary run then takes the shards' files in as
it does those of an interrupted attempt, makes what is missing, whatever depends on all records included, and finishes.
So its result is that of one process, whichever shards were killed, begun again or never begun.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from r2v_core.errors import R2VError
from r2v_core.runs import processes, stopping
from r2v_core.runs.locks import LOCK_NAME, OPENING_S, held_by
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest, write_atomic, write_manifest
from r2v_core.runs.memory import FOLDER
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageSpec
from r2v_core.stages.at_work import refuse_if_begun_before
from r2v_core.stages.runner import begin, open_context, stage_function
from r2v_core.stages.table import get_stage


def run_shard(spec: StageSpec, report: Reporter) -> None:
    """Play this process's part of a planned run; nothing to do if the run is done.

    Raises:
        R2VError: if the stage has no shards, if another process writes the run or this shard of it, or for anything
            the stage's user can fix.
    """
    shard, run_dir = processes.shard(), Path(spec.run_dir)
    assert shard is not None
    if not get_stage(spec.stage).sharded:
        raise R2VError(f"stage '{spec.stage}' has no shards; unset {processes.SHARD}")
    if processes.count() > 1:
        raise R2VError(f"a shard runs in one process, not in {processes.count()}; start it without a launcher")
    if _is_done(run_dir):
        report.log(f"run {spec.run_id} is done; nothing is left for shard {shard.index}")
        return
    folder, name = run_dir / FOLDER, f"shard{shard.index}"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        stopping.listening(),
        stopping.held(),
        held_by(folder / f"{name}.lock", f"shard {shard.index} of run '{spec.run_id}'"),
    ):
        began = time.monotonic()
        _open(spec, run_dir)
        report.at = partial(_note, folder / f"{name}.json")
        report.log(f"shard {shard.index} of {shard.count} of run {spec.run_id} for {spec.partition}")
        try:
            with stopping.at_once(), suppress(processes.PartDone):
                stage_function(spec.stage)(open_context(spec, run_dir, report))
        finally:
            _add_time(run_dir, time.monotonic() - began)
        report.log(f"shard {shard.index} has made its part in {time.monotonic() - began:.1f} s")


def progress(run_dir: Path) -> dict[str, tuple[int, int]]:
    """What is made → (how many there are, of how many), summed over the shards that have said so."""
    found: dict[str, tuple[int, int]] = {}
    for path in (run_dir / FOLDER).glob("shard*.json"):
        with suppress(OSError, ValueError):
            what, done, total = json.loads(path.read_text(encoding="utf-8"))
            before = found.get(what, (0, 0))
            found[what] = (before[0] + done, before[1] + total)
    return found


def forget_progress(run_dir: Path) -> None:
    """Let shards that are about to begin say anew how far they are."""
    for path in (run_dir / FOLDER).glob("shard*.json"):
        path.unlink(missing_ok=True)


def _note(path: Path, what: str, done: int, total: int) -> None:
    with suppress(OSError):
        write_atomic(path, json.dumps([what, done, total]) + "\n")


def _is_done(run_dir: Path) -> bool:
    return (run_dir / MANIFEST_NAME).exists() and read_manifest(run_dir).status == "done"


def _open(spec: StageSpec, run_dir: Path) -> None:
    """Make the run's manifest say ``running``, as the first shard to come; the lock shows that no main process is on.

    Raises:
        R2VError: if one is, or if another run makes the same thing.
    """
    with held_by(run_dir / LOCK_NAME, f"run '{spec.run_id}'", OPENING_S):
        if (run_dir / MANIFEST_NAME).exists() and read_manifest(run_dir).status in ("running", "done"):
            return
        manifest = begin(spec, run_dir)
        write_manifest(manifest, run_dir)
        refuse_if_begun_before(spec, manifest)


def _add_time(run_dir: Path, seconds: float) -> None:
    """Count a shard's time as the run's: it is that of all attempts together."""
    with suppress(OSError, R2VError), held_by(run_dir / LOCK_NAME, "", OPENING_S):
        manifest = read_manifest(run_dir)
        if manifest.status == "running":
            update = {"wall_time_s": round(manifest.wall_time_s + seconds, 3)}
            write_manifest(manifest.model_copy(update=update), run_dir)
