"""What the commands of ``r2v registry`` share: their options, and how the registry is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2v_core.errors import R2VError

if TYPE_CHECKING:
    from r2v_core.registry.api import DataRegistry

Project = Annotated[Path | None, typer.Option("--project", help="Project root (default: found from here upwards).")]
File = Annotated[Path | None, typer.Option("--registry", help="Registry file (default: data/registry.duckdb).")]
Roots = Annotated[list[str] | None, typer.Option("--root", help="Folder to search for runs (default: data, outputs).")]


def open_registry(project: Path | None, path: Path | None) -> DataRegistry:
    """The registry, to write to; it need not exist."""
    from r2v_core.registry.api import DataRegistry
    from r2v_core.runs.directories import project_root

    return DataRegistry(project or project_root(), path)


def open_existing(project: Path | None, path: Path | None) -> DataRegistry:
    """The registry, to read from; runs whose process was killed are shown as what they are.

    Raises:
        R2VError: if a file is named that does not exist; the project's own is empty until something is registered.
    """
    if path is not None and not path.exists():
        raise R2VError(f"--registry {path}: no such file; leave it out for the project's own, or r2v registry rebuild")
    found = open_registry(project, path)
    found.settle()
    return found


def search_roots(given: list[str] | None) -> tuple[str, ...]:
    """The folders to search for runs."""
    from r2v_core.registry.register import ROOTS

    return tuple(given) if given else ROOTS
