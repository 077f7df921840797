"""``data.merge``: training inputs that are merges of several runs, named by a query on the registry.

Part of planning, so the compute node never sees it: it is handed the merge as an ordinary input run. The merge of
collected runs takes the place of ``trajectories``; the perturbed copies of exactly the episodes that it keeps take the
place of ``perturbed``. Episodes of templates that the partition's own task suite holds out (for the router, for
validation, for the test) are left out, whichever teacher or seed they come from.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import Config, PathsConfig
from r2v_core.console import say
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunInput, read_manifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage

if TYPE_CHECKING:
    from r2v_core.registry.database import Connection
    from r2v_core.registry.merged_run import Merge


def merged_roles(stage: Stage, config: Config) -> tuple[str, ...]:
    """Roles of inputs that a merge takes the place of."""
    return stage.merged if config.data.merge is not None else ()


def held_out_templates(suite: UpstreamRun) -> set[str]:
    """Templates of a task suite that no training episode may come from."""
    return {task.template_id for task in JsonlStore(suite.artifact("tasks"), Task) if task.split != "train"}


class Request(BaseModel):
    """What is to be merged, for whom."""

    model_config = ConfigDict(extra="forbid")

    roles: list[str]
    merge: str | list[str] = Field(description="data.merge")
    partition: str
    project: Path
    paths: PathsConfig
    suite: Path = Field(description="directory of the partition's own task suite")


def merged_inputs(
    stage: Stage, config: Config, partition: Partition, project: Path, suite: UpstreamRun | None
) -> dict[str, Path]:
    """Role → run directory of the merges that ``data.merge`` asks for, made (and registered) if they are new.

    The work is done by a process of its own (this module): a training process has no use for a database engine, and
    where DuckDB and torch meet in one, DuckDB's bindings print pages about leaked objects when it ends.

    Args:
        stage: what is planned.
        config: with ``data.merge``.
        partition: what is trained.
        project: the project root.
        suite: the partition's own task suite.

    Raises:
        R2VError: naming ``data.merge`` and what to change, if it names no usable runs.
    """
    if config.data.merge is None or not stage.merged:
        return {}
    if suite is None:
        raise R2VError(
            f"data.merge: partition '{partition.key}' has no task suite, so which templates it holds out is unknown; "
            f"make it first:\n  python -m r2v_core.stages.task_suite --partition '{partition.key}'"
        )
    request = Request(
        roles=list(stage.merged),
        merge=config.data.merge,
        partition=partition.key,
        project=project,
        paths=config.paths,
        suite=suite.directory.resolve(),
    )
    command = [sys.executable, "-m", "r2v_core.stages.merged_inputs"]
    done = subprocess.run(command, input=request.model_dump_json(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise R2VError(f"data.merge: {said[-1].removeprefix('error: ').removeprefix('data.merge: ')}")
    return {role: Path(directory) for role, directory in json.loads(done.stdout).items()}


def make_merges(request: Request) -> dict[str, Path]:
    """Find or make the merges of a request and return role → run directory.

    Raises:
        R2VError: if it names no usable runs, or a merge can't be written.
    """
    from r2v_core.registry import DataRegistry, merged_run
    from r2v_core.registry.database import read_closed
    from r2v_core.registry.register import ROOTS

    registry, paths = DataRegistry(request.project), request.paths
    registry.sync([*ROOTS, paths.data, paths.outputs])  # runs made by hand count too
    with read_closed(registry.path) as con:
        merges = _prepare(con, request)
        found = {role: merged_run.find(con, registry.project, merges[role]) for role in request.roles}
    folder = registry.project / paths.data / "runs"
    made = {
        role: merged_run.write(merges[role], registry.project, folder, title=role)
        for role, directory in found.items()
        if directory is None
    }
    registry.register_all(list(made.values()))
    return {role: directory for role, directory in {**found, **made}.items() if directory is not None}


def _prepare(con: Connection, request: Request) -> dict[str, Merge]:
    from r2v_core.registry.merged_run import chosen_ids, prepare
    from r2v_core.registry.values import relative

    where, run_ids = (request.merge, None) if isinstance(request.merge, str) else (None, request.merge)
    ids = chosen_ids(con, run_ids, where)
    _check(con, ids, Partition.parse(request.partition))
    project, suite = request.project, UpstreamRun(request.suite, read_manifest(request.suite))
    tasks = RunInput(
        role="tasks",
        run_id=suite.manifest.run_id,
        digest=suite.manifest.digest,
        path=relative(suite.directory, project),
    )
    held_out = held_out_templates(suite)
    trajectories = prepare(con, project, ids, where=where, held_out=held_out, suite=tasks)
    if not trajectories.n_episodes:
        raise R2VError(
            f"nothing is left: every episode is of a template that '{request.partition}' holds out; name other runs"
        )
    perturbed = prepare(con, project, _perturb_runs(con, ids), deduplicate=False, copies_of=trajectories, suite=tasks)
    if not perturbed.n_episodes:
        raise R2VError(
            f"the perturbed copies in {', '.join(s.run_id for s in perturbed.sources)} are not of the episodes merged; "
            "if they were registered by an older program: r2v registry rebuild"
        )
    return {"trajectories": trajectories, "perturbed": perturbed}


def _check(con: Connection, run_ids: list[str], partition: Partition) -> None:
    """Only trajectories of the partition's benchmark are training data: no evaluation, no other game's prompts."""
    from r2v_core.registry.merged_run import stages_of
    from r2v_core.registry.queries import get_run

    for run_id in run_ids:
        run = get_run(con, run_id)
        if stages_of(run) != ["collect"]:
            raise R2VError(
                f"run '{run_id}' is of stage '{run.stage}'; training data are collected trajectories: add AND stage = "
                "'collect'"
            )
        if run.benchmark != partition.benchmark:
            raise R2VError(
                f"run '{run_id}' is of benchmark '{run.benchmark}', '{partition.key}' is not: add AND benchmark = "
                f"'{partition.benchmark}'"
            )


def _perturb_runs(con: Connection, run_ids: list[str]) -> list[str]:
    """The newest finished perturbation of each run, or, of a merge that has none, of what was merged into it.

    Raises:
        R2VError: if none of the runs has one.
    """
    newest = dict(
        con.execute(
            "SELECT upstream_run_id, run_id FROM lineage JOIN runs USING (run_id) "
            "WHERE stage = 'perturb' AND status = 'done' AND role = 'trajectories' "
            "QUALIFY row_number() OVER (PARTITION BY upstream_run_id ORDER BY created_at DESC, run_id DESC) = 1"
        ).fetchall()
    )
    merged = con.execute("SELECT run_id, upstream_run_id FROM lineage WHERE role = 'source'").fetchall()
    found, left, seen = [], list(run_ids), set()
    while left:
        run_id = left.pop()
        if run_id in seen:
            continue
        seen.add(run_id)
        if run_id in newest:
            found.append(newest[run_id])
        else:
            left += [source for merge, source in merged if merge == run_id]
    if not found:
        raise R2VError(
            f"none of the {len(run_ids)} merged runs has perturbed copies, and training reads both; materialise "
            "perturbed_dataset of their partitions first, e.g. python -m r2v_core.stages.perturb --partition "
            f"'{con.execute('SELECT partition FROM runs WHERE run_id = ?', [run_ids[0]]).fetchall()[0][0]}'"
        )
    return found


def main() -> int:
    """Answer the request on stdin with role → run directory as JSON on stdout; returns the exit status."""
    try:
        made = make_merges(Request.model_validate_json(sys.stdin.read()))
    except R2VError as error:
        say(f"error: {error}", error=True)
        return 2
    say(json.dumps({role: str(directory) for role, directory in made.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
