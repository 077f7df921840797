"""The logged steps that a router learns from: read, checked, and which of their features it may look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from r2v_core.agent.features import choose_features
from r2v_core.config.schema import RouterConfig
from r2v_core.errors import R2VError
from r2v_core.models.labels import BENEFIT
from r2v_core.models.router import RouterRow, label_name
from r2v_core.runs.jsonl import JsonlStore

MIN_ROWS = 30
"""Steps that each split needs at least; below, batch norm and calibration mean nothing."""


def read_rows(path: Path) -> tuple[list[RouterRow], list[RouterRow]]:
    """The steps to train on and those to calibrate on, from a file of ``router_features``.

    Raises:
        R2VError: if a split has too few steps, only one kind of label, or two labels; names the keys to raise.
    """
    store = JsonlStore(path, RouterRow)
    rows = list(store)
    if store.problems:
        raise R2VError(f"{store.problems[0]}; materialise 'router_features' again")
    label_name(rows)  # one, or an error
    parts = {split: [row for row in rows if row.split == split] for split in ("router", "validation")}
    for split, part in parts.items():
        check_rows(split, part)
    return parts["router"], parts["validation"]


def check_rows(split: str, rows: Sequence[RouterRow]) -> None:
    """Refuse what can't be learned or calibrated from.

    Raises:
        R2VError: for fewer than 30 steps, or labels of one class.
    """
    keys = f"benchmark.splits.{split}, perturbations.seeds.{split} or router_features.episodes_per_task"
    benefit = label_name(rows) == BENEFIT
    keys = f"router_features.benefit.state_share, {keys}" if benefit else keys
    if len(rows) < MIN_ROWS:
        raise R2VError(
            f"router: {len(rows)} labelled steps in the {split} split, at least {MIN_ROWS} needed; raise {keys}"
        )
    kinds = {row.label for row in rows}
    if benefit and len(kinds) == 1:
        raise R2VError(
            f"router: the benefit of a call is {kinds.pop():g} at every one of {len(rows)} measured steps of the "
            f"{split} split, so there is nothing to tell apart; raise {keys}, or learn from "
            "router_features.label=progress"
        )
    if kinds == {1.0}:
        raise R2VError(
            f"router: the small model fails at every one of {len(rows)} steps of the {split} split, so there is "
            f"nothing to tell apart; train it longer (training.bc.max_steps) or raise {keys}"
        )
    if kinds == {0.0}:
        raise R2VError(
            f"router: the small model fails at none of {len(rows)} steps of the {split} split, so nothing needs "
            f"routing; raise the perturbation probabilities or {keys}"
        )


def feature_names(config: RouterConfig, row: RouterRow, tell: Callable[[str], None]) -> tuple[str, ...]:
    """The features to learn from: those that the config names, or all that the rollouts were logged with.

    Args:
        config: which are wanted.
        row: one of the logged steps.
        tell: told which features older rollouts lack.
    """
    names = choose_features(config.features)
    lacking = [name for name in names if name not in row.features]
    if lacking and not config.features:  # all that there are
        why = "the rollouts were logged before these were features"
        tell(f"warning: the router learns without {', '.join(lacking)}: {why}")
        return tuple(name for name in names if name not in lacking)
    return tuple(names)
