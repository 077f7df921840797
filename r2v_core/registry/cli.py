"""``r2v registry``: the registry from a shell."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from r2v_core.console import Json, print_json, print_table, say, shorten
from r2v_core.errors import R2VError
from r2v_core.registry.export_cli import export, export_evals
from r2v_core.registry.options import File, Project, Roots, open_existing, open_registry, search_roots

registry_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Runs, their lineage, merges and SQL. Exit status: 0, fine; 1, something was found or left out; 2, an error.",
)


class Direction(str, Enum):
    """Which way to follow the lineage."""

    up = "up"
    down = "down"
    both = "both"


class Drawing(str, Enum):
    """How to draw it."""

    tree = "tree"
    mermaid = "mermaid"
    json = "json"


registry_app.command(
    name="export",
    epilog="Examples: r2v registry export RUN --output chats.jsonl · r2v registry export "
    "--where \"stage = 'collect'\" --format sharegpt --successful --output chats.jsonl",
)(export)
registry_app.command(
    name="export-evals",
    epilog="Example: r2v registry export-evals textworld_evaluate_noisy_20260131T120000 --output logs",
)(export_evals)


@registry_app.command(epilog="Example: r2v registry summary --json")
def summary(as_json: Json = False, project: Project = None, registry: File = None) -> None:
    """Print totals, and the number of runs by stage, teacher and status."""
    found = open_existing(project, registry).summary()
    if as_json:
        return print_json(found)
    say(found)
    return None


@registry_app.command(epilog="Example: r2v registry show textworld_env_expert_20260131T120000")
def show(run: str, as_json: Json = False, project: Project = None, registry: File = None) -> None:
    """Print everything about one run."""
    manifest = open_existing(project, registry).get_run(run).model_dump(mode="json")
    if as_json:
        return print_json(manifest)
    for key, value in manifest.items():
        if value not in (None, "", [], {}):
            text = json.dumps(value, ensure_ascii=False, indent=2) if isinstance(value, (dict, list)) else str(value)
            say(f"{key:16} {text}")
    return None


@registry_app.command(
    epilog="Examples: r2v registry query --benchmark textworld --stage collect --status done · "
    "r2v registry query --where \"cost_usd > 1 AND list_contains(tags, 'paper')\""
)
def query(
    benchmark: Annotated[str | None, typer.Option(help="e.g. textworld")] = None,
    provider: Annotated[str | None, typer.Option(help="Teacher provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Teacher model.")] = None,
    status: Annotated[str | None, typer.Option(help="running, done, failed or partial.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag of the run.")] = None,
    stage: Annotated[str | None, typer.Option(help="e.g. collect")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run's partition.")] = None,
    since: Annotated[str | None, typer.Option(help="Earliest start, ISO 8601 in UTC.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition on the table runs.")] = None,
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """List the runs that meet every condition, newest first."""
    opened = open_existing(project, registry)
    found = opened.query(
        benchmark=benchmark,
        provider=provider,
        model=model,
        status=status,
        tag=tag,
        stage=stage,
        seed=seed,
        since=since,
        where=where,
    )
    if not found:
        from r2v_core.registry.filters import refuse_unknown_values

        columns_of = {"benchmark": benchmark, "provider": provider, "model": model, "stage": stage, "seed": seed}
        refuse_unknown_values(opened, columns_of | {"status": status})
    if as_json:
        return print_json([asdict(row) for row in found])
    columns = ("run_id", "stage", "status", "seed", "n_episodes", "success_rate", "cost_usd", "created_at", "tags")
    print_table([{name: getattr(row, name) for name in columns} for row in found])
    say(f"{len(found)} runs")
    return None


@registry_app.command(
    epilog="Examples: r2v registry sql 'FROM success_by_model' · "
    'r2v registry sql "SELECT * FROM runs WHERE seed = ?" --param 1'
)
def sql(
    statement: Annotated[str, typer.Argument(metavar="SQL")],
    param: Annotated[list[str] | None, typer.Option("--param", help="Value of the next ? in the statement.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the statement may take; 0: no limit.")] = 60.0,
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Answer one read-only SELECT. Ctrl-C stops it."""
    frame = open_existing(project, registry).sql(statement, param or None, timeout)
    if as_json:
        return print_json(json.loads(frame.to_json(orient="records", date_format="iso")))
    print_table(frame.astype(object).where(frame.notna(), None).to_dict("records"), list(frame.columns))
    say(f"{len(frame)} rows")
    return None


@registry_app.command(epilog="Example: r2v registry lineage RUN --direction both --format mermaid")
def lineage(
    run: str,
    direction: Annotated[
        Direction, typer.Option(help="up: what it was made from; down: what was made from it.")
    ] = Direction.up,
    drawing: Annotated[Drawing, typer.Option("--format", help="How to draw it.")] = Drawing.tree,
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Show the runs that a run was made from, or those made from it."""
    graph = open_existing(project, registry).lineage(run, direction.value)
    if as_json or drawing is Drawing.json:
        return print_json(graph.to_dict())
    say(graph.to_mermaid() if drawing is Drawing.mermaid else graph.to_tree())
    return None


@registry_app.command(
    epilog="Examples: r2v registry merge RUN1 RUN2 --output merged.parquet · r2v registry merge "
    "--where \"benchmark = 'textworld' AND stage = 'collect' AND status = 'done'\" --as-run"
)
def merge(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN...")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition on the table runs, instead of run ids.")] = None,
    output: Annotated[Path | None, typer.Option(help="A .jsonl or .parquet file.")] = None,
    as_run: Annotated[bool, typer.Option(help="Make a registered run, with manifest and lineage.")] = False,
    stage: Annotated[list[str] | None, typer.Option(help="Stage to take (default: collect, perturb).")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Split to take (default: train).")] = None,
    deduplicate: Annotated[bool, typer.Option(help="Keep only the oldest copy of equal action sequences.")] = True,
    tag: Annotated[list[str] | None, typer.Option(help="Tags of the new run (with --as-run).")] = None,
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Merge training data of runs into one file, or into a run of its own, without duplicates."""
    from r2v_core.registry.selection import SPLITS, STAGES

    found, stages, splits = open_existing(project, registry), stage or STAGES, split or SPLITS
    if bool(runs) == bool(where) or bool(output) == as_run:
        raise R2VError("say what to merge (run ids or --where) and where to (--output FILE or --as-run)")
    if as_run:
        manifest = found.merge_to_run(
            runs or None, where=where, deduplicate=deduplicate, stages=stages, splits=splits, tags=tag or []
        )
        counts = json.loads((found.project / manifest.output_dir / "merge.json").read_text(encoding="utf-8"))["runs"]
        target, total = manifest.run_id, manifest.n_episodes
    else:
        assert output is not None
        ids = runs or [row.run_id for row in found.query(where=where)]
        store = found.merge_runs(ids, output, deduplicate, stages=stages, splits=splits)
        counts = {run_id: {"kept": n, "dropped": store.dropped[run_id]} for run_id, n in store.kept.items()}
        target, total = str(output), store.n_episodes
    if as_json:
        return print_json({"output": target, "n_episodes": total, "runs": counts})
    print_table([{"run_id": run_id, **numbers} for run_id, numbers in counts.items()])
    say(f"{total} episodes in {target}")
    return None


@registry_app.command(epilog="Example: r2v registry register data/runs/textworld_env_expert_20260131T120000")
def register(
    directories: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...")],
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Add runs to the registry, or bring them up to date."""
    manifests = open_registry(project, registry).register_all(directories)
    if as_json:
        return print_json([manifest.run_id for manifest in manifests])
    for manifest in manifests:
        say(f"registered {manifest.run_id} ({manifest.status}, {manifest.n_episodes} episodes)")
    return None


@registry_app.command(epilog="Example: r2v registry sync --root data --root /scratch/lab/outputs")
def sync(root: Roots = None, as_json: Json = False, project: Project = None, registry: File = None) -> None:
    """Register the runs on disk that the registry does not know yet. Status 1 if anything was left out."""
    report = open_registry(project, registry).sync(search_roots(root))
    if as_json:
        print_json(asdict(report))
    else:
        _print_problems(report.problems)
        say(*[f"registered {run_id}" for run_id in report.registered], f"{len(report.registered)} runs")
    raise typer.Exit(1 if report.problems else 0)


@registry_app.command(name="import", epilog="Example: r2v registry import data/registry.json")
def import_(path: Path, as_json: Json = False, project: Project = None, registry: File = None) -> None:
    """Take over an old registry.json and its runs, which stay as they are. Status 1 if anything was left out."""
    report = open_registry(project, registry).import_legacy(path)
    if as_json:
        print_json({"episodes": report.episodes, "problems": report.problems})
    else:
        print_table([{"run_id": run_id, "episodes": n} for run_id, n in report.episodes.items()])
        _print_problems(report.problems)
        say(f"{len(report.episodes)} runs, {sum(report.episodes.values())} episodes imported")
    raise typer.Exit(1 if report.problems else 0)


@registry_app.command(epilog="Example: r2v registry rebuild --root data --root /scratch/lab/outputs")
def rebuild(root: Roots = None, as_json: Json = False, project: Project = None, registry: File = None) -> None:
    """Recreate the registry from the manifests and data on disk. Status 1 if anything was left out."""
    report = open_registry(project, registry).rebuild(search_roots(root))
    if as_json:
        print_json(asdict(report))
    else:
        _print_problems(report.problems)
        say(f"{report.n_runs} runs, {report.n_episodes} episodes registered")
    raise typer.Exit(1 if report.problems else 0)


@registry_app.command(epilog="Examples: r2v registry doctor · r2v registry doctor --no-digests --json")
def doctor(
    root: Roots = None,
    digests: Annotated[bool, typer.Option(help="Read all artifacts again and compare their digests.")] = True,
    mark_partial: Annotated[bool, typer.Option(help="Mark runs of dead jobs as partial without asking.")] = False,
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Show where registry and disk disagree, and what to do. Status 1 if anything was found."""
    found = open_registry(project, registry)
    findings = found.doctor(search_roots(root), check_digests=digests)
    dead = [finding for finding in findings if finding.kind == "dead_run"]
    marked = []
    if dead and not mark_partial and not as_json and sys.stdin.isatty():
        for finding in dead:
            say(f"{finding.run_id}: {finding.detail}")
        mark_partial = typer.confirm(f"Mark {len(dead)} dead runs as partial?")
    if mark_partial:
        from r2v_core.registry.doctor import mark_partial as mark

        marked = [mark(found.project / finding.path).run_id for finding in dead]
        found.register_all([found.project / finding.path for finding in dead])
        findings = [finding for finding in findings if finding.run_id not in marked]
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "marked_partial": marked})
    else:
        for finding in findings:
            say(f"{finding.kind}: {finding.path}: {finding.detail}\n    {finding.fix}")
        say(*[f"marked partial: {run_id}" for run_id in marked])
        say(f"{len(findings)} findings" if findings else "registry and disk agree")
    raise typer.Exit(1 if findings else 0)


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        say(f"left out: {shorten(problem, 400)}", error=True)
