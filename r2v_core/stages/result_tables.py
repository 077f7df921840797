"""Tables and figures: from the step traces of all evaluated seeds to numbers with intervals."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("result_tables")

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.evaluation.frame import frames
from r2v_core.models.labels import PROGRESS
from r2v_core.perturbations import FAMILIES, probabilities
from r2v_core.results.breakdowns import breakdown
from r2v_core.results.bundles import Analysis, bundle_paths, make_bundles, read_bundle, write_bundle
from r2v_core.results.figures import save_figures
from r2v_core.results.manager import TABLES_FOLDER, ResultsManager
from r2v_core.results.naming import drawn_over, summarised_seed
from r2v_core.results.risk_scores import rule_scores
from r2v_core.results.summary import statement
from r2v_core.results.wandb_run import log_results
from r2v_core.runs.agreement import differing_keys
from r2v_core.runs.artifacts import verify
from r2v_core.runs.directories import find_runs
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import StageContext, StageResult, UpstreamRun
from r2v_core.stages.ablations import PREFIX
from r2v_core.stages.table import ABLATIONS, get_stage
from r2v_core.training.tracking import wandb_settings
from r2v_core.trajectory import Episode

CONDITIONS = ("clean", "noisy")


def run(ctx: StageContext) -> StageResult:
    """Make all tables and figures in the run directory, then publish them to ``<results>/``.

    The partition's own evaluations and the newest finished ones of the experiment's other seeds are read; seeds
    evaluated under another configuration are left out with a log line. Where W&B is asked for, they go there as well.
    """
    tracking = wandb_settings(ctx.config.training)
    results = ctx.project / ctx.config.paths.results
    results.mkdir(parents=True, exist_ok=True)
    with FileLock(results / ".lock"):
        runs = evaluation_runs(ctx)
        _refuse_foreign(ctx, results / TABLES_FOLDER)
        manager, drawings = _make(ctx, runs)
        _publish(ctx.run_dir / TABLES_FOLDER, results / TABLES_FOLDER)
        _publish(ctx.run_dir / "figures", results / "figures")
    ctx.report.log(f"tables and figures are in {ctx.config.paths.results}/")
    if tracking.mode != "disabled":
        log_results(tracking, manager, drawings, ctx.run_dir, _setting(ctx))
        ctx.report.log(f"results are in the W&B run {ctx.run_dir.name} of '{tracking.project}' ({tracking.mode})")
    compared = manager.comparisons
    episodes = manager.frames.episodes
    return StageResult(
        digest=tables_digest(manager),
        artifacts={
            "preview": "preview.md",
            "evaluations": "evaluations.jsonl",
            "tables": TABLES_FOLDER,
            "figures": "figures",
            "main_table": f"{TABLES_FOLDER}/main_table.csv",
            "comparisons": f"{TABLES_FOLDER}/comparisons.csv",
            "llm_summary": f"{TABLES_FOLDER}/llm_summary.json",
            **{path.name: f"figures/{path.name}" for path in drawings.values()},
        },
        n_episodes=len(episodes),
        n_success=int(episodes["success"].sum()),
        n_steps=int(episodes["n_steps"].sum()),
        counts={
            "seeds": int(episodes["seed"].nunique()),
            "methods": int(episodes["method"].nunique()),
            "comparisons": len(compared),
            **{str(verdict).replace(" ", "_"): int(n) for verdict, n in compared["verdict"].value_counts().items()},
        },
    )


def evaluation_runs(ctx: StageContext) -> dict[tuple[str, int], UpstreamRun]:
    """The evaluation of each condition and partition seed: the inputs for this seed, the newest for the others."""
    chosen: dict[tuple[str, int], UpstreamRun] = {(c, ctx.seed): ctx.inputs[c] for c in CONDITIONS}
    for condition in CONDITIONS:
        mine = ctx.inputs[condition].manifest
        passed: set[int] = {ctx.seed}
        for run_ in find_runs(
            ctx.project, ctx.config.paths, get_stage(f"evaluate_{condition}"), ctx.partition.experiment
        ):
            seed = run_.manifest.seed
            if seed in passed:
                continue
            passed.add(seed)
            differing = differing_keys(mine.config, run_.manifest.config)
            if differing:
                ctx.report.log(
                    f"seed {seed} ({condition}) is left out: {run_.manifest.run_id} was evaluated with another "
                    f"{', '.join(differing[:3])}{' …' if len(differing) > 3 else ''}; evaluate it again to include it"
                )
            else:
                verify(run_.directory, run_.manifest)
                chosen[(condition, seed)] = run_
    return dict(sorted(chosen.items()))


def ablation_runs(ctx: StageContext, runs: dict[tuple[str, int], UpstreamRun]) -> dict[tuple[str, int], UpstreamRun]:
    """(ablation, partition seed) → its newest finished run, where it ablates one of ``runs``; none is required."""
    found: dict[tuple[str, int], UpstreamRun] = {}
    for stage in ABLATIONS:
        for run_ in find_runs(ctx.project, ctx.config.paths, get_stage(stage), ctx.partition.experiment):
            key = (stage.removeprefix(PREFIX), run_.manifest.seed)
            full = runs.get(("noisy", run_.manifest.seed))
            ablates = {item.digest for item in run_.manifest.inputs if item.role == "full"}
            if full is not None and key not in found and full.manifest.digest in ablates:
                verify(run_.directory, run_.manifest)
                found[key] = run_
    return found


def _make(ctx: StageContext, runs: dict[tuple[str, int], UpstreamRun]) -> tuple[ResultsManager, dict[str, Path]]:
    folder = ctx.run_dir / TABLES_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted attempt; made whole each time
    folder.mkdir()
    ctx.report.log(f"reading {len(runs)} evaluations of seeds {', '.join(sorted({str(s) for _, s in runs}, key=int))}")
    played = (episode for run_ in runs.values() for episode in read_parquet(run_.artifact("episodes"), Episode))
    tables = frames(played, rule_scores)
    if tables.episodes.empty:
        raise R2VError(f"the evaluations of '{ctx.partition.key}' hold no episodes; materialise them again")
    analysis = Analysis(
        cvar_alpha=ctx.config.training.router.cvar_alpha,
        bootstrap=ctx.config.evaluation.bootstrap,
        confidence=ctx.config.evaluation.confidence,
    )
    sources = {key: (run_.manifest.run_id, run_.manifest.digest) for key, run_ in runs.items()}
    bundles = make_bundles(tables, sources, _setting(ctx), analysis)
    ablated = ablation_runs(ctx, runs)
    for (name, seed), run_ in ablated.items():
        traces = frames(read_parquet(run_.artifact("traces"), Episode))
        source = {("noisy", seed): (run_.manifest.run_id, run_.manifest.digest)}
        bundles += make_bundles(traces, source, _setting(ctx), analysis, name)
    for bundle in bundles:
        write_bundle(bundle, folder)
    manager = ResultsManager(folder)
    rows = {
        (method, condition, seed): part.set_index("metric")["value"].dropna().to_dict()
        for (method, condition, seed), part in manager.all_evaluations.groupby(["method", "condition", "seed"])
    }
    for bundle in bundles:
        row = rows[bundle.method, bundle.condition, str(bundle.seed)]
        metrics = {str(name): float(value) for name, value in row.items()}
        write_bundle(bundle.model_copy(update={"metrics": metrics}), folder)
    manager.generate_all()
    if not ablated:
        ctx.report.log("no ablation evaluations among the runs: ablations.csv holds only its header")
    write_evaluations(manager, ctx.run_dir / "evaluations.jsonl")
    write_atomic(ctx.run_dir / "preview.md", preview(manager))
    return manager, save_figures(manager, ctx.run_dir / "figures")


def _setting(ctx: StageContext) -> dict[str, Any]:
    config = ctx.inputs["noisy"].manifest.config
    router = ctx.inputs["router"].manifest
    settings = json.loads(ctx.inputs["router"].artifact("settings").read_text(encoding="utf-8"))
    identity = ctx.identity()
    return {
        "experiment": ctx.config.name,
        "partition": ctx.partition.experiment,
        "teacher": f"{identity['teacher_provider']}/{identity['teacher_model']}",
        "small_model": config["slm"]["model"],
        "candidates_per_state": config["candidates"]["k"],
        "max_steps": config["benchmark"]["max_steps"],
        "benchmark_options": config["benchmark"]["options"],
        "cost_units": {
            "small_model_step": config["agent"]["cost_slm"],
            "candidate": config["agent"].get("cost_candidate", 0.0),
            "scored_candidate": config["agent"].get("cost_verifier", 0.0),
            "teacher_step": config["agent"]["cost_teacher"],
        },
        "perturbation_probabilities": {
            family: {operator: p for operator, p in probabilities(config["perturbations"].get(family, {})).items() if p}
            for family in FAMILIES
        },
        "held_out_families": config["perturbations"].get("held_out", []),
        "severity_spread": config["perturbations"].get("severity_spread", 0.0),
        "cvar_epsilon": ctx.config.training.router.cvar_epsilon,
        "splits": "by task template; perturbation seeds of the test are used for nothing else",
        "router_label": settings.get("label", PROGRESS),
        f"router_of_seed_{ctx.seed}": {"run": router.run_id, **router.counts},
        f"calibration_of_seed_{ctx.seed}": settings["calibration"].get(
            "statement", "calibrated by a version that certified nothing"
        ),
    }


def write_evaluations(manager: ResultsManager, path: Path) -> None:
    """One JSON line a number, for the registry: seed is null for rows over all seeds, spreads are ``<metric>_sd``."""
    long = manager.evaluations
    swept = manager.all_evaluations
    parts = [long, swept[swept["method"].str.contains("@")]]
    spread = long.dropna(subset="spread")
    parts.append(spread.assign(metric=spread["metric"] + "_sd", value=spread["spread"], ci_low=None, ci_high=None))
    for by in ("family", "perturbations"):
        groups = breakdown(manager.frames, manager.analysis, by)
        parts.append(groups.assign(metric=groups["metric"] + f"@{by}=" + groups["group"]))
    columns = ["method", "benchmark", "condition", "seed", "metric", "value", "ci_low", "ci_high", "n"]
    lines = []
    for part in parts:
        for row in part[columns].astype(object).to_dict("records"):
            row = {key: None if pd.isna(value) else value for key, value in row.items()}
            row["seed"] = None if row["seed"] == "all" else int(row["seed"])
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
    write_atomic(path, "\n".join(lines) + "\n")


def preview(manager: ResultsManager) -> str:
    """The main table in Markdown, short enough for an asset's page."""
    table = manager.main_table
    seed = summarised_seed(list(table["seed"]))
    table = table[table["seed"] == seed]
    lines = [
        f"**{manager.answer}**",
        "",
        f"Intervals are {drawn_over(seed)}.",
        "",
        "| condition | method | success | interval | CVaR failure | teacher calls | cost | unsafe | ECE |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table.to_dict("records"):
        cvar = "–" if pd.isna(row["cvar_failure"]) else f"{row['cvar_failure']:.1%}"
        ece = "–" if pd.isna(row["ece"]) else f"{row['ece']:.3f}"
        lines.append(
            f"| {row['condition']} | {row['method']} | {row['success_rate']:.1%} | {row['success_rate_ci']} | {cvar} "
            f"| {row['llm_call_rate']:.1%} | {row['avg_cost']:.1f} | {row['safety_failure_rate']:.1%} | {ece} |"
        )
    lines.append("")
    lines += [f"- {statement(row)}" for row in manager.comparisons.to_dict("records")]
    return "\n".join(lines) + "\n"


def tables_digest(manager: ResultsManager) -> str:
    """Digest of the tables without what two runs of the same experiment differ in: latencies, last float digits."""
    main = manager.main_table.drop(columns=["avg_latency"])
    return digest_of(
        [table.to_csv(index=False, float_format="%.9g") for table in (main, manager.comparisons, manager.ablations)]
    )


def _refuse_foreign(ctx: StageContext, folder: Path) -> None:
    """Don't overwrite the tables of another experiment that was given the same results folder."""
    for path in bundle_paths(folder):
        try:
            other = read_bundle(path).setting.get("partition")
        except R2VError:
            continue  # half-written or old: replaced
        if other != ctx.partition.experiment:
            raise R2VError(
                f"{path} belongs to '{other}', not to '{ctx.partition.experiment}'; give each "
                "experiment its own folder (config key paths.results), or delete this one"
            )


def _publish(source: Path, target: Path) -> None:
    """Make ``target`` hold the files of ``source``; run bundles and figures of earlier tables go."""
    target.mkdir(parents=True, exist_ok=True)
    fresh = {path.name for path in source.iterdir()}
    for path in source.iterdir():
        temporary = target / f".{path.name}.tmp"
        shutil.copyfile(path, temporary)
        temporary.replace(target / path.name)
    stale = [*bundle_paths(target), *target.glob("*.png"), *target.glob("*.svg"), *target.glob("*.pdf")]
    for path in stale:
        if path.name not in fresh:
            path.unlink()
