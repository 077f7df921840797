"""What a server is given to load: an adapter that it can serve, or weights that the adapter was merged into."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from r2v_core.config.schema import SLMConfig
from r2v_core.digest import digest_file, digest_of
from r2v_core.errors import R2VError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM has room for; an adapter of another one takes the room of the next."""


def adapter_name(adapter: Path) -> str:
    """A name for an adapter that no other one has."""
    return f"r2v-{digest_of([digest_file(path) for path in sorted(adapter.glob('adapter_*'))])[:16]}"


def lora_rank(adapter: Path) -> int:
    """The room that a server has to keep for an adapter.

    Raises:
        R2VError: for an adapter that vLLM does not serve.
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    why = next((f"it has {key}" for key in ("modules_to_save", "use_dora") if config.get(key)), None)
    if rank > RANKS[-1]:
        why = f"its rank is {rank}, and vLLM serves up to {RANKS[-1]}"
    if why:
        raise R2VError(f"{adapter}: vLLM does not serve this adapter: {why}; set slm.engine_options.adapter to merged")
    return next(room for room in RANKS if room >= rank)


def merged(slm: SLMConfig, cache: Path, adapter: Path) -> Path:
    """A folder with the model's weights, the adapter merged into them; made once and kept in the cache.

    Raises:
        R2VError: if model or adapter can't be loaded, or the model is quantised: merging would round it anew.
    """
    if slm.quantization != "none":
        raise R2VError(
            f"slm.engine_options.adapter: merged weights are not those of a model trained in {slm.quantization}; "
            "set it to served"
        )
    import torch

    from r2v_core.models.hub import load_lm, load_tokenizer, merge_adapter

    target = cache / "merged" / digest_of([slm.model, slm.dtype, adapter_name(adapter)])[:24]
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if not target.exists():
            staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".merging-"))
            try:
                model = merge_adapter(load_lm(slm, cache), adapter)
                model.save_pretrained(staging)
                load_tokenizer(slm, cache).save_pretrained(staging)
                staging.rename(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            del model
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the server needs the room
    return target
