"""What a run left on disk: sizes and digests, in its manifest when it finishes, checked by who reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from r2v_core.digest import digest_file, digest_files
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import RunManifest


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


def digests(run_dir: Path, artifacts: Mapping[str, str]) -> dict[str, str]:
    """Digest of each artifact (name → path below the run directory) that is there."""
    found = {name: digest(run_dir / below) for name, below in artifacts.items()}
    return {name: known for name, known in found.items() if known is not None}


def altered(run_dir: Path, manifest: RunManifest) -> list[str]:
    """One line for each artifact that is no longer what the run wrote; nothing is known of runs before version 3."""
    return [
        f"{run_dir / manifest.artifacts[name]} is {'gone' if now is None else 'not what the run wrote'}"
        for name, known in manifest.artifact_digests.items()
        if (now := digest(run_dir / manifest.artifacts[name])) != known
    ]


def verify(run_dir: Path, manifest: RunManifest) -> None:
    """Refuse to read a finished run whose files were altered.

    Raises:
        R2VError: naming the file and what to do.
    """
    for problem in altered(run_dir, manifest):
        raise R2VError(
            f"run {manifest.run_id} ({manifest.stage}): {problem}; finished runs do not change: bring the "
            "file back, or materialise the run again"
        )


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
