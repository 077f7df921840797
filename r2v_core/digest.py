"""Content digests: what Dagster sees as data versions and what derives every random stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

DIGEST_HEX = 32
"""Length of a digest in hexadecimal characters (128 bits)."""


def canonical_json(value: Any) -> str:
    """Serialise ``value`` so that equal values give equal text (sorted keys, no spaces, NaN refused)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Digest of any JSON-like value."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=DIGEST_HEX // 2).hexdigest()


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read in blocks."""
    hasher = hashlib.blake2b(digest_size=DIGEST_HEX // 2)
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def digest_files(paths: Iterable[Path], root: Path) -> str:
    """Digest of several files: their paths below ``root`` and their contents, independent of listing order."""
    return digest_of({path.relative_to(root).as_posix(): digest_file(path) for path in paths})


def derive_seed(*parts: Any) -> int:
    """A 63-bit seed that depends on every part and on nothing else.

    Streams of randomness are named, not drawn: ``derive_seed(seed, "collect", task_id)`` is the same on every
    machine, in every process order.
    """
    raw = hashlib.blake2b(canonical_json([str(p) for p in parts]).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


def rng(*parts: Any) -> np.random.Generator:
    """A NumPy generator seeded with :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))
