"""Whether a run was made in the world that a configuration describes.

Some sections describe the world of an experiment rather than how one stage does its work: the tasks, the noise, the
small model, how the teacher is asked. A run that depends on one of them, itself or through what it read, can't be an
input where the section says otherwise: tasks of another suite would be trained on, a policy of another model loaded.
How a stage works (``training.*``, ``collection``, ``agent``, …) may differ: that is what one tries out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from r2v_core.config import LoadedConfig, section
from r2v_core.config.schema import Config
from r2v_core.runs.manifest import RunManifest

WORLD = ("benchmark", "teacher.options", "slm", "perturbations")
FREE = ("perturbations.seeds", "slm.engine", "slm.engine_options")
"""Parts of these sections that each stage reads for itself: how many noise seeds a split has, what samples tokens."""
NOT_THE_EXPERIMENT = ("name", "paths.", "evaluation.", "training.wandb", "agent.parallel", "collection.parallel",
                      "episodes.", "candidates.batch_size")  # fmt: skip
"""Config keys in which two evaluations may differ without being of another experiment."""
BEFORE = {"perturbations.severity_spread": 0.0}
"""What snapshots without these keys were made with, where that isn't today's default."""


def disagreement(sections: Iterable[str], loaded: LoadedConfig, manifest: RunManifest) -> str | None:
    """Where a run's configuration says something else than today's, in a line; None where they agree.

    Args:
        sections: config sections that the run depends on, through its inputs too.
        loaded: today's configuration.
        manifest: the run's; keys that its snapshot does not have yet are taken as equal.
    """
    depends = tuple(sections)
    for name in WORLD:
        if not any(f"{key}.".startswith(f"{name}.") for key in depends):
            continue
        then, now = recorded(manifest, name), section(loaded.config, name)
        if (found := _first_difference(name, then, now)) is not None:
            key, old, new = found
            return (
                f"run {manifest.run_id} was made with {key} = {_shown(old)}, and {key} = {_shown(new)} in "
                f"{loaded.path} ({loaded.sources.get(key, 'default')})"
            )
    return None


def recorded(manifest: RunManifest, key: str) -> Any:
    """What a run's config snapshot says of a dotted key or section; None where it has none."""
    value: Any = manifest.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _first_difference(key: str, then: Any, now: Any) -> tuple[str, Any, Any] | None:
    if key in FREE or then is None:
        return None
    if isinstance(then, dict) and isinstance(now, dict):
        for name in now:
            if name in then and (found := _first_difference(f"{key}.{name}", then[name], now[name])) is not None:
                return found
        return None
    return None if then == now else (key, then, now)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def experiment_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted key → value, of a config snapshot, without those that do not make another experiment."""
    return {key: value for key, value in _leaves(config) if not key.startswith(NOT_THE_EXPERIMENT)}


def differing_keys(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Dotted config keys in which two evaluations differ and so don't belong in one table.

    A key that an older snapshot does not have yet stands at its default, which changes nothing, or at :data:`BEFORE`.
    """
    unsaid = experiment_keys(Config().model_dump(mode="json")) | BEFORE
    a, b = (unsaid | experiment_keys(config) for config in (mine, other))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def _leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
