"""The run bundles of one experiment and seed as one small file, for seeds that were evaluated in different places.

Tables and figures need the steps of the compared methods alone, so those of swept thresholds are left out. Numbers keep
every digit: tables made from packed bundles are those of the bundles.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

from r2v_core.errors import R2VError
from r2v_core.results.bundles import Bundle, write_bundle

SUFFIX = ".jsonl.xz"


def pack(bundles: Iterable[Bundle], path: Path) -> Path:
    """Write bundles as lines of JSON, compressed; the same bundles give the same bytes.

    Raises:
        R2VError: if the file's name does not say what it is.
    """
    if not path.name.endswith(SUFFIX):
        raise R2VError(f"{path}: packed bundles are called <name>{SUFFIX}")
    lines = []
    for bundle in sorted(bundles, key=lambda one: one.filename):
        content = bundle.model_dump(mode="json")
        if bundle.part == "sweep":
            content["steps"] = {name: [] for name in bundle.steps}
        lines.append(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
    path.write_bytes(lzma.compress("".join(lines).encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    return path


def unpack(path: Path, folder: Path) -> list[Path]:
    """Write the bundles of a packed file into a folder, each under its own name.

    Raises:
        R2VError: naming the file, if it is not one.
    """
    try:
        text = lzma.decompress(path.read_bytes()).decode("utf-8")
        bundles = [Bundle.model_validate_json(line) for line in text.splitlines()]
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise R2VError(
            f"{path}: not packed run bundles ({str(error).splitlines()[0]}); name a file *{SUFFIX}"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    return [write_bundle(bundle, folder) for bundle in bundles]
