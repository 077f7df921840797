"""Perturbation seeds z: which purpose may use which."""

from __future__ import annotations

from typing import Literal, get_args

from r2v_core.config.schema import SeedsConfig
from r2v_core.errors import R2VError

Purpose = Literal["train", "router", "validation", "test", "teacher"]

BLOCK = 10_000
"""Seeds of one purpose in one partition."""

_SPAN = 10 * BLOCK


def seeds_for(purpose: Purpose, seeds: SeedsConfig, partition_seed: int) -> list[int]:
    """The seeds z of one purpose in one partition.

    Every partition seed has a block of 10,000 for each purpose (seed 7, router: 710000, 710001, …), so two purposes
    or two partition seeds never share a z, and asking for more seeds never changes the first ones.

    Raises:
        R2VError: for an unknown purpose, a negative partition seed, or more seeds than a block holds.
    """
    known = list(SeedsConfig.model_fields)
    if purpose not in known:
        raise R2VError(f"Unknown purpose '{purpose}' of perturbation seeds; known: {', '.join(known)}")
    return _block(purpose, int(getattr(seeds, purpose)), partition_seed, f"perturbations.seeds.{purpose}")


def teacher_seeds(worlds: int, partition_seed: int) -> list[int]:
    """The seeds z that a teacher of the project's own is trained under, so many as ``training.teacher.worlds``.

    Raises:
        R2VError: for a negative partition seed, or more seeds than a block holds.
    """
    return _block("teacher", worlds, partition_seed, "training.teacher.worlds")


def _block(purpose: Purpose, count: int, partition_seed: int, key: str) -> list[int]:
    if partition_seed < 0:
        raise R2VError(f"The partition seed is {partition_seed}; use 0 or more")
    if count > BLOCK:
        raise R2VError(f"{key} = {count}: use at most {BLOCK}, which are kept apart from other purposes")
    start = partition_seed * _SPAN + get_args(Purpose).index(purpose) * BLOCK
    return list(range(start, start + count))


def purpose_of(z: int) -> Purpose | None:
    """The purpose that a seed of :func:`seeds_for` or :func:`teacher_seeds` serves; None for a seed of no block."""
    purposes = get_args(Purpose)
    block = z % _SPAN // BLOCK
    return purposes[block] if block < len(purposes) else None


def seeds_of_groups(purpose: Purpose, seeds: SeedsConfig, partition_seed: int, groups: int) -> list[list[int]]:
    """As many seeds z for each of ``groups`` as the purpose has, no two groups sharing one, none of them in seeds_for.

    Raises:
        R2VError: as :func:`seeds_for`.
    """
    count = int(getattr(seeds, purpose))
    every = seeds_for(purpose, seeds.model_copy(update={purpose: count * (groups + 1)}), partition_seed)
    return [every[count * n : count * (n + 1)] for n in range(1, groups + 1)]
