"""``r2v plan``: what a partition will take before anything runs, with what is already there taken off."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from r2v_core.config import LoadedConfig
from r2v_core.config.schema import Config
from r2v_core.console import Json, print_json, print_table, say
from r2v_core.partition import Partition
from r2v_core.runs.directories import find_resumable, find_runs, project_root
from r2v_core.runs.fingerprint import fingerprint
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.forecast import Tasks, Work, planned_tasks, work_of
from r2v_core.stages.inputs import find_inputs
from r2v_core.stages.merged_inputs import merged_roles
from r2v_core.stages.table import inputs_of, pipeline
from r2v_core.stages.up_to_date import run_up_to_date
from r2v_core.teachers.names import find_teacher
from r2v_core.teachers.prices import load_prices

ADDED = ("episodes", "steps", "states", "new_tokens", "teacher_calls", "judge_calls", "updates")
MEASURED = ("usd", "hours", "disk_gb")


@dataclass(frozen=True)
class Measured:
    """What a finished run of a stage took, scaled to the work that is planned."""

    run: RunManifest
    hours: float
    disk_gb: float
    usd: float


def plan(
    partition: Annotated[
        str, typer.Argument(metavar="PARTITION", help="<benchmark>:<teacher>[@<variant>]|<seed>, in quotes")
    ],
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option(help="dotted config override key=value; repeat the option for more")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the most work that each stage of a partition will take, leaving out what is up to date. Runs nothing."""
    project = project_root()
    key = Partition.parse(partition)
    loaded = partition_config(key, config, overrides or [], project)
    made, begun = state_of(loaded, key, project)
    tasks = _tasks(made.get("task_suite"), loaded.config)
    rows, by = [], {}
    for stage in pipeline(loaded.config):
        work = work_of(stage.name, loaded.config, tasks)
        measured = None if stage.name in made else measure(stage, loaded.config, key, project)
        if measured:
            by[stage.asset] = measured.run
        state = f"up to date ({made[stage.name].manifest.run_id})" if stage.name in made else "to do"
        if stage.name in begun:
            state = "to do: an interrupted run goes on"
        rows.append(_row(stage, state, work, measured))
    left = [row for row in rows if row["state"].startswith("to do")]
    total = {name: _sum(row[name] for row in left) for name in (*ADDED, *MEASURED)}
    money = _money(loaded.config, key, project)
    if as_json:
        print_json({"partition": key.key, "tasks": dict(tasks), "stages": rows, "left": total, "money": money})
        return
    shown = [name for name in (*ADDED, *MEASURED) if any(row[name] for row in rows)]
    table = [*rows, {"asset": "left to do", "state": f"{len(left)} of {len(rows)}", **total}]
    print_table([_rounded(row) for row in table], ["asset", "state", *shown])
    suite = "as made" if "task_suite" in made else "one per template of benchmark.splits"
    say(
        "",
        f"tasks ({suite}): " + ", ".join(f"{n} {split}" for split, n in tasks.items() if n),
        "Counts are upper bounds: every episode counts as benchmark.max_steps steps, and nothing is reused.",
        money,
        "Ablations are not included.",
    )
    unknown = [row["asset"] for row in left if row["asset"] not in by]
    for asset, run in by.items():
        say(f"hours and disk of {asset}: from {run.run_id} on {run.host or 'an unknown host'}")
    if unknown:
        say(f"no finished run of this benchmark and model to measure by: {', '.join(unknown)}")


def state_of(loaded: LoadedConfig, partition: Partition, project: Path) -> tuple[dict[str, UpstreamRun], set[str]]:
    """Stage → its run that is up to date; and the stages of which an interrupted run would go on."""
    made: dict[str, UpstreamRun] = {}
    begun: set[str] = set()
    for stage in pipeline(loaded.config):
        upstreams = [upstream for _, upstream in inputs_of(stage, loaded.config)]
        if any(upstream not in made for upstream in upstreams) or merged_roles(stage, loaded.config):
            continue  # a merge is made where it is planned, so nothing is said about it here
        inputs = find_inputs(stage, loaded, partition, project, {})
        if run := run_up_to_date(stage, loaded, partition, project, inputs):
            made[stage.name] = run
            continue
        wanted = fingerprint(stage, loaded, partition, inputs)
        if find_resumable(project, loaded.config.paths, stage, partition, wanted):
            begun.add(stage.name)
    return made, begun


def measure(stage: Stage, config: Config, partition: Partition, project: Path) -> Measured | None:
    """What the newest finished run of a stage on this benchmark and small model took, scaled; None without one.

    Both sizes are counted in the same way from the two configs, so that what bounds leave out cancels.
    """
    planned = work_of(stage.name, config, planned_tasks(config)).size
    for run in find_runs(project, config.paths, stage):
        try:
            then = Config.model_validate(run.manifest.config)
        except ValidationError:
            continue  # of a config that has other keys today
        if run.manifest.benchmark != partition.benchmark or then.slm.model != config.slm.model:
            continue
        size = work_of(stage.name, then, planned_tasks(then)).size
        scale = planned / size if size else 1.0
        size_gb = sum(file.stat().st_size for file in run.directory.rglob("*") if file.is_file()) / 1e9
        hours = run.manifest.wall_time_s / 3600
        return Measured(run.manifest, hours * scale, size_gb * scale, run.manifest.cost_usd * scale)
    return None


def _tasks(suite: UpstreamRun | None, config: Config) -> Tasks:
    planned = planned_tasks(config)
    counts = suite.manifest.counts if suite else {}
    return {split: int(counts.get(f"tasks_{split}", count)) for split, count in planned.items()}


def _row(stage: Stage, state: str, work: Work, measured: Measured | None) -> dict[str, Any]:
    counts = {name: value or None for name, value in asdict(work).items() if name in ADDED}
    took = {name: getattr(measured, name) or None if measured else None for name in MEASURED}
    return {"asset": stage.asset, "state": state, **counts, **took}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.2g}") if isinstance(value, float) else value for name, value in row.items()}


def _sum(values: Any) -> float | int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _money(config: Config, partition: Partition, project: Path) -> str:
    """What the teacher may cost, in a sentence."""
    entry = find_teacher(partition.teacher, project)
    price = load_prices(project).find(entry.provider, entry.model)
    if price is not None and price.input == price.output == 0:
        return f"The teacher '{partition.teacher}' costs nothing."
    limits = config.teacher.limits
    cost = (
        f"The teacher '{partition.teacher}' costs {price or 'an unknown amount (add its price to configs/prices.yaml)'}"
    )
    if limits.budget_usd:
        return f"{cost}; a run of a stage spends ${limits.budget_usd:g} at most (teacher.limits.budget_usd)."
    if limits.budget_calls:
        return f"{cost}; a run of a stage asks {limits.budget_calls} times at most (teacher.limits.budget_calls)."
    if limits.budget_usd is None and limits.budget_calls is None:
        return f"{cost}; nothing starts before teacher.limits.budget_usd or .budget_calls is set."
    return f"{cost}; no limit is set."
