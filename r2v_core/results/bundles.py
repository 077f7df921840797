"""Run bundles: one JSON file per method, condition and seed, from which every table can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core.errors import R2VError
from r2v_core.evaluation.frame import EPISODE_COLUMNS, STEP_COLUMNS, TOKENS, Frames
from r2v_core.migrations import current_version, read_record
from r2v_core.runs.manifest import write_atomic

KEY_COLUMNS = ("method", "benchmark", "condition", "seed")
PLACE = ("z", "replicate", "task_id")
"""What tells a bundle's episodes apart."""


class Analysis(BaseModel):
    """How the numbers are computed; the same for all runs of one table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cvar_alpha: float = Field(gt=0, le=1, description="tail share of cvar_failure")
    bootstrap: int = Field(ge=1, description="resamples over templates")
    confidence: float = Field(gt=0, lt=1, description="coverage of the intervals")


class Bundle(BaseModel):
    """One method under one condition and partition seed, self-contained."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = current_version("Bundle")
    method: str
    benchmark: str
    condition: str
    seed: int
    run_id: str = Field(description="the evaluation run")
    digest: str = Field(description="that run's content digest")
    ablation: str = Field("", description="the ablation whose variant this is; empty: the full method's evaluation")
    setting: dict[str, Any] = Field(description="what was evaluated: teacher, models, noise, costs")
    analysis: Analysis
    metrics: dict[str, float | None] = Field(
        default_factory=dict, description="this run's row of the main table, for readers; not read back"
    )
    episodes: dict[str, list[Any]] = Field(description="column → values, one entry per episode")
    steps: dict[str, list[Any]] = Field(description="column → values, one entry per step; 'episode' is the position")

    @property
    def part(self) -> Literal["main", "sweep", "ablation"]:
        """What it is a part of: the compared methods, a threshold sweep (``<rule>@<share>``), or an ablation."""
        return "ablation" if self.ablation else "sweep" if "@" in self.method else "main"

    @property
    def filename(self) -> str:
        """``<method>_<condition>_seed<k>.json``."""
        return f"{self.method}_{self.condition}_seed{self.seed}.json"


def make_bundles(
    frames: Frames,
    sources: dict[tuple[str, int], tuple[str, str]],
    setting: dict[str, Any],
    analysis: Analysis,
    ablation: str = "",
) -> list[Bundle]:
    """Split both tables into bundles.

    Args:
        frames: all methods, conditions and seeds.
        sources: (condition, seed) → (run id, digest) of the evaluation that the episodes come from.
        setting: stored in each bundle.
        analysis: stored in each bundle.
        ablation: name of the ablation that the episodes belong to, if they do.
    """
    bundles = []
    steps_by_key = dict(list(frames.steps.groupby(list(KEY_COLUMNS))))
    for key, rows in frames.episodes.groupby(list(KEY_COLUMNS)):
        method, benchmark, condition, seed = key
        run_id, digest = sources[(str(condition), int(seed))]
        rows = rows.reset_index(drop=True)
        position = {place: i for i, place in enumerate(_places(rows))}
        steps = steps_by_key.get(key, frames.steps.iloc[:0])
        columns = {name: _jsonable(steps[name]) for name in STEP_COLUMNS[len(KEY_COLUMNS) + len(PLACE) :]}
        owners = [position[place] for place in _places(steps)]
        bundles.append(
            Bundle(
                method=str(method),
                benchmark=str(benchmark),
                condition=str(condition),
                seed=int(seed),
                run_id=run_id,
                digest=digest,
                ablation=ablation,
                setting=setting,
                analysis=analysis,
                episodes={name: _jsonable(rows[name]) for name in EPISODE_COLUMNS[len(KEY_COLUMNS) :]},
                steps={"episode": owners, **columns},
            )
        )
    return bundles


def _places(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(rows[list(PLACE)].itertuples(index=False, name=None))


def bundle_frames(bundles: Iterable[Bundle]) -> Frames:
    """The tables that :func:`make_bundles` split, equal to those."""
    episodes, steps = [], []
    for bundle in bundles:
        key = {name: getattr(bundle, name) for name in KEY_COLUMNS}
        # columns that bundles once lacked
        lacking = dict.fromkeys(TOKENS, np.nan) | {"error": False, "flagged": False, "replicate": 0}
        rows = pd.DataFrame(lacking | bundle.episodes)
        episodes.append(rows.assign(**key))
        table = pd.DataFrame({"scores": None} | bundle.steps)  # likewise
        owner = rows.iloc[table.pop("episode").to_numpy(dtype=int)]
        steps.append(table.assign(**key, **{name: owner[name].to_numpy() for name in PLACE}))
    step_table = pd.concat(steps, ignore_index=True)[list(STEP_COLUMNS)]
    floats = dict.fromkeys(("probability", "threshold", "label"), float)
    return Frames(pd.concat(episodes, ignore_index=True)[list(EPISODE_COLUMNS)], step_table.astype(floats))


def write_bundle(bundle: Bundle, folder: Path) -> Path:
    """Write a bundle under its own name, whole or not at all."""
    path = folder / bundle.filename
    write_atomic(path, json.dumps(bundle.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n")
    return path


def bundle_paths(folder: Path) -> list[Path]:
    """The bundles of a folder, by name."""
    return sorted(folder.glob("*_seed*.json"))


def read_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        R2VError: naming the file, if it is not one.
    """
    try:
        return read_record(Bundle, path.read_text(encoding="utf-8"), path)
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        first = " ".join(str(error).splitlines()[:3])
        raise R2VError(f"{path}: not a run bundle ({first}); materialise result_tables again") from error


def read_bundles(folder: Path) -> list[Bundle]:
    """Read all bundles of a folder and check that they belong together.

    Raises:
        R2VError: if there are none, one is broken, or they were made with different statistics settings.
    """
    bundles = [read_bundle(path) for path in bundle_paths(folder)]
    if not bundles:
        raise R2VError(f"{folder}: no run bundles (<method>_<condition>_seed<k>.json); materialise result_tables first")
    _same(bundles, folder)
    return bundles


def _same(bundles: Sequence[Bundle], folder: Path) -> None:
    for what in ("benchmark", "analysis"):
        first = getattr(bundles[0], what)
        for bundle in bundles:
            if getattr(bundle, what) != first:
                raise R2VError(
                    f"{folder}: {bundle.filename} and {bundles[0].filename} differ in '{what}' "
                    f"({getattr(bundle, what)} against {first}), so they can't share a table; delete the folder "
                    "and materialise result_tables"
                )


def _jsonable(column: pd.Series) -> list[Any]:
    values: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    return values
