"""Engines by name (``slm.engine``): what samples tokens. Adding one is adding a module to this package.

Another package offers a module of its own as an entry point. The name and the options of the engine stand in the
config section ``slm``, and so in the fingerprint of every run that samples.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from r2v_core.config.explain import explain, schema_keys
from r2v_core.config.schema import Section, SLMConfig
from r2v_core.engines.base import Engine, EngineModule
from r2v_core.errors import R2VError, nearest

ENTRY_POINTS = "r2v.engines"
"""Entry-point group under which another package offers a module that is an engine."""


def engines() -> dict[str, Callable[[], EngineModule]]:
    """Name → what imports the engine's module."""

    def built_in(name: str) -> Callable[[], EngineModule]:
        return lambda: cast(EngineModule, import_module(f"{__name__}.{name}"))

    own = {module.name: built_in(module.name) for module in pkgutil.iter_modules(__path__) if module.name != "base"}
    return own | {
        found.name: cast(Callable[[], EngineModule], found.load) for found in entry_points(group=ENTRY_POINTS)
    }


def check_engine(slm: SLMConfig, key: str = "slm") -> Section:
    """Checked options of an engine, defaults filled in; imports nothing heavy.

    Args:
        key: the config section that names it, for messages.

    Raises:
        R2VError: for an unknown engine, and for each option that it does not have or whose value it refuses.
    """
    known = engines()
    if slm.engine not in known:
        raise R2VError(f"{key}.engine: unknown engine '{slm.engine}'.{nearest(slm.engine, known)}")
    model, options = known[slm.engine]().Options, f"{key}.engine_options"
    try:
        return model.model_validate_json(json.dumps(slm.engine_options), strict=True)
    except ValidationError as error:
        if not model.model_fields:
            named = ", ".join(sorted(slm.engine_options))
            raise R2VError(f"{options}: the engine '{slm.engine}' has no options; remove {named}") from None
        wrong = explain(error, schema_keys(model, options), options)
        raise R2VError("\n".join(f"{name} (engine {slm.engine}): {what}" for name, what in wrong.items())) from None


def open_engine(slm: SLMConfig, cache: Path, adapter: Path | None = None, logs: Path | None = None) -> Engine:
    """The engine that ``slm.engine`` names, its model loaded.

    Args:
        cache: where converted models lie.
        adapter: a LoRA adapter (a folder written by peft) to sample with.
        logs: a folder for the logs of what the engine starts; None: ``logs`` of the cache.

    Raises:
        R2VError: for an unknown engine or option, or a model or adapter that can't be loaded.
    """
    options = check_engine(slm)
    return engines()[slm.engine]().open_engine(slm, options, cache, adapter, logs or cache / "logs")
