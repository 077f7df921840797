"""The report: one HTML page from the tables and figures of ``result_tables`` and the episodes behind them."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("report")

import shutil
from collections.abc import Iterator

from r2v_core.agent.rules.table import RULES
from r2v_core.config.schema import AgentConfig
from r2v_core.digest import digest_file
from r2v_core.errors import R2VError
from r2v_core.results.bundles import Bundle
from r2v_core.results.manager import ResultsManager
from r2v_core.results.report import render_report
from r2v_core.runs.directories import find_runs
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import StageContext, StageResult, UpstreamRun
from r2v_core.stages.ablations import PREFIX
from r2v_core.stages.table import get_stage
from r2v_core.trajectory import Episode

REPORT_NAME = "report.html"


def run(ctx: StageContext) -> StageResult:
    """Render the page into the run directory and put a copy at ``<results>/report.html``."""
    tables = ctx.inputs["tables"]
    results = ResultsManager(tables.artifact("tables"))
    runs = traced_runs(ctx, results)
    n = len(results.all_frames.episodes)
    ctx.report.log(f"reading {n:,} episodes of {len(runs)} runs")
    page = render_report(results, tables.artifact("figures"), _episodes(runs), _rules(ctx.inputs["noisy"]))
    path = ctx.run_dir / REPORT_NAME
    write_atomic(path, page)
    published = ctx.project / ctx.config.paths.results / REPORT_NAME
    published.parent.mkdir(parents=True, exist_ok=True)
    temporary = published.with_name(f".{published.name}.{ctx.spec.run_id}.tmp")
    shutil.copyfile(path, temporary)
    temporary.replace(published)
    ctx.report.log(f"wrote {ctx.config.paths.results}/{REPORT_NAME} ({path.stat().st_size / 1e6:.1f} MB)")
    return StageResult(
        digest=digest_file(path),
        artifacts={"report": REPORT_NAME},
        counts={"episodes": n, "megabytes": round(path.stat().st_size / 1e6, 2)},
    )


def traced_runs(ctx: StageContext, results: ResultsManager) -> list[UpstreamRun]:
    """The evaluations and ablations that the tables were made from, so that the page's episodes are the tables' own.

    Raises:
        R2VError: if one is gone or changed, or this partition has been evaluated again since the tables were made.
    """
    given = {run.manifest.run_id: run for run in (ctx.inputs["clean"], ctx.inputs["noisy"])}
    chosen: dict[str, UpstreamRun] = {}
    for bundle in results.bundles:
        if bundle.run_id in chosen:
            continue
        found = given.get(bundle.run_id) or _find(ctx, bundle)
        if found is None or found.manifest.digest != bundle.digest:
            raise R2VError(
                f"the tables were made from {bundle.run_id} (seed {bundle.seed}, {bundle.condition}), which is "
                f"{'gone' if found is None else 'no longer the same'}; materialise result_tables again, then report"
            )
        chosen[bundle.run_id] = found
    newer = sorted(set(given) - set(chosen))
    if newer:
        raise R2VError(
            f"the tables of '{ctx.partition.key}' do not hold its evaluation {newer[0]}; "
            "materialise result_tables again, then report"
        )
    return list(chosen.values())


def _find(ctx: StageContext, bundle: Bundle) -> UpstreamRun | None:
    stage = PREFIX + bundle.ablation if bundle.ablation else f"evaluate_{bundle.condition}"
    runs = find_runs(ctx.project, ctx.config.paths, get_stage(stage), ctx.partition.experiment, bundle.seed)
    return next((run_ for run_ in runs if run_.manifest.run_id == bundle.run_id), None)


def _episodes(runs: list[UpstreamRun]) -> Iterator[Episode]:
    for run_ in runs:
        name = "traces" if run_.manifest.stage.startswith(PREFIX) else "episodes"
        yield from read_parquet(run_.artifact(name), Episode)


def _rules(evaluation: UpstreamRun) -> dict[str, str]:
    """How the rules without a single score decided, for readers of a step."""
    agent = AgentConfig.model_validate(evaluation.manifest.config["agent"])
    return {name: rule.decision(agent) for name, rule in RULES.items() if rule.decision is not None}
