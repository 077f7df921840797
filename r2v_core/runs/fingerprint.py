"""The fingerprint of a run: what decides its result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from r2v_core.config import LoadedConfig, section
from r2v_core.digest import digest_of
from r2v_core.partition import Partition
from r2v_core.runs.manifest import RunInput, RunManifest
from r2v_core.runs.stage import Stage

BASE = "base"
"""Role of the finished run that a run builds on, where it does (``--extend``)."""


def fingerprint(stage: Stage, loaded: LoadedConfig, partition: Partition, inputs: Iterable[RunInput]) -> str:
    """What decides a stage's result: code version, the config it reads, partition and input digests."""
    return digest_of(
        {
            "stage": stage.name,
            "version": stage.version,
            "config": {name: _deciding(name, section(loaded.config, name)) for name in stage.sections},
            "partition": partition.key,
            "inputs": {item.role: item.digest for item in inputs},
            **({"named_models": named} if (named := _named_models(stage, loaded)) else {}),
        }
    )


def _named_models(stage: Stage, loaded: LoadedConfig) -> dict[str, str]:
    """Of the language models that the project's own files name, those that a stage asks or trains."""
    roots = {name.removeprefix("training.").split(".")[0] for name in stage.sections}
    return {role: model for role, model in loaded.named_models.items() if role in roots}


def _deciding(name: str, value: Any) -> Any:
    """What of a config section decides a result: of ``benchmark`` not the splits that nothing is in."""
    if name != "benchmark":
        return value
    return {**value, "splits": {split: count for split, count in value["splits"].items() if count}}


def is_made_of(
    manifest: RunManifest, stage: Stage, loaded: LoadedConfig, partition: Partition, inputs: Iterable[RunInput]
) -> bool:
    """Whether a run is what a stage would make of these settings and inputs, whatever run it builds on."""
    base = [item for item in manifest.inputs if item.role == BASE]
    return manifest.fingerprint == fingerprint(stage, loaded, partition, [*inputs, *base])
