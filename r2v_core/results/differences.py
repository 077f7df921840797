"""What the columns of a comparison differ in beside the methods: what their reader has to be told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2v_core.results.side_by_side import Column, conditions
from r2v_core.runs.agreement import experiment_keys
from r2v_core.runs.manifest import RunManifest

OF_A_SEED = ("partition seeds", "perturbation seeds")
SHOWN = 12
"""Lines; what a variant changes is a handful of settings."""


def differences(columns: Sequence[Column], runs: Mapping[str, RunManifest], by_seed: bool = False) -> list[str]:
    """One sentence for each thing in which the columns differ, those that forbid a comparison first.

    Args:
        columns: what is set side by side; those over several seeds of an experiment whose seeds are columns too are
            best left out.
        runs: evaluation run → its manifest, of those that are known.
        by_seed: whether the columns are seeds, which differ in what a seed decides.
    """
    if len(columns) < 2:
        return []
    said = [*_absent_conditions(columns), *_tasks(columns)]
    facts = [_facts(column, runs) for column in columns]
    if by_seed:
        facts = [{name: value for name, value in one.items() if name not in OF_A_SEED} for one in facts]
    differing = [name for name in dict.fromkeys(name for one in facts for name in one)
                 if len({_key(one.get(name)) for one in facts}) > 1]  # fmt: skip
    said += [_sentence(name, columns, [one.get(name) for one in facts]) for name in differing[:SHOWN]]
    if len(differing) > SHOWN:
        said.append(f"They differ in {len(differing) - SHOWN} settings more: {', '.join(differing[SHOWN:])}.")
    return said


def _absent_conditions(columns: Sequence[Column]) -> Iterator[str]:
    for condition in conditions(columns):
        if absent := [column.title for column in columns if column.rows(condition).empty]:
            yield f"Not evaluated in the condition '{condition}': {', '.join(absent)}."


def _tasks(columns: Sequence[Column]) -> Iterator[str]:
    played = [{task for bundle in column.bundles for task in bundle.episodes["task_id"]} for column in columns]
    if any(tasks != played[0] for tasks in played):
        counts = "; ".join(f"{column.title}: {len(tasks)}" for column, tasks in zip(columns, played, strict=True))
        shared = len(set.intersection(*played))
        yield (
            f"The columns were played on different test tasks ({counts}; {shared} in all columns): a difference "
            "between them is one of tasks too, not of methods or settings alone."
        )


def _facts(column: Column, runs: Mapping[str, RunManifest]) -> dict[str, Any]:
    """Name → value, of everything that two columns should share to be compared, or that the variant is about."""
    noisy = {z for bundle in column.bundles if bundle.condition == "noisy" for z in bundle.episodes["z"]}
    made = [runs[bundle.run_id] for bundle in column.bundles if bundle.run_id in runs]
    config = experiment_keys(made[0].config) if made else {"configuration": "not registered"}
    return {
        "partition seeds": column.seeds,
        "perturbation seeds": sorted(noisy),
        "version of the evaluation's code": sorted({run.code_version for run in made}),
        "commit": sorted({(run.git_commit or "unknown")[:12] for run in made}),
        **column.bundles[0].analysis.model_dump(),
        **config,
    }


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _sentence(name: str, columns: Sequence[Column], values: Sequence[Any]) -> str:
    by_value: dict[str, list[str]] = {}
    for column, value in zip(columns, values, strict=True):
        by_value.setdefault(_shown(value), []).append(column.title)
    if len(by_value) == 1:
        return f"The columns differ in {name}."
    return f"The columns differ in {name} (" + "; ".join(f"{', '.join(t)}: {v}" for v, t in by_value.items()) + ")."


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        text = ", ".join(map(str, value)) if all(isinstance(one, (str, int)) for one in value) else _key(value)
        text = text if len(text) <= 40 else f"{len(value)} of them"
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
