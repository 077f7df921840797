"""Runs whose process was killed outright: their manifests say ``running`` until somebody looks."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from filelock import FileLock, Timeout

from r2v_core.runs.locks import LOCK_NAME, shards_alive
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest, sweep_temporaries, utc_now, write_atomic

KILLED = "its process was killed"


def end_partial(run_dir: Path, error: str) -> RunManifest | None:
    """Make the manifest of a run that nobody writes any more say ``partial``; None if somebody does or it has ended."""
    try:
        with FileLock(run_dir / LOCK_NAME, timeout=0):
            manifest = read_manifest(run_dir)
            if manifest.status != "running" or shards_alive(run_dir):
                return None
            update = {"status": "partial", "finished_at": utc_now(), "error": error}
            sweep_temporaries(run_dir)
            # its data are of the version that began it, so the manifest goes on saying so
            values = json.loads((run_dir / MANIFEST_NAME).read_text(encoding="utf-8")) | update
            write_atomic(run_dir / MANIFEST_NAME, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
            return manifest.model_copy(update=update)
    except Timeout:
        return None


def settle(run_dir: Path, manifest: RunManifest) -> RunManifest:
    """The truth about a run: one that calls itself running, of a process of this machine that is gone, is ``partial``.

    A directory that can't be written stays as it is, and so does a run of another machine: whether its process lives
    can't be seen from here (``r2v registry doctor`` weighs what there is).
    """
    if manifest.status != "running" or manifest.host != platform.node():
        return manifest
    try:
        return end_partial(run_dir, KILLED) or read_manifest(run_dir)
    except OSError:
        return manifest
