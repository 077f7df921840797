"""Stage 9: one ablation. Train and play again what it changes, compare with the full method on the same episodes.

Starting from the evaluation of the full method, the runs that it was made from are followed upwards. A stage is run
again with the variant's overrides if they touch a section that it reads, or if one of its inputs was run again; else
the full method's own run is used. The new runs are ordinary ones (manifest, fingerprint, lineage, resumable) under
``<data>/ablations`` and ``<outputs>/ablations``, where the pipeline does not look for its inputs; two ablations that
need the same run share it.

Run by hand: ``python -m r2v_core.stages.ablation no_consistency --config configs/mrp.yaml``.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from r2v_core.config import Config, LoadedConfig, override_config
from r2v_core.console import say
from r2v_core.digest import digest_of
from r2v_core.evaluation.frame import Frames, frames
from r2v_core.results.bundles import Analysis
from r2v_core.results.comparisons import REFERENCE, comparisons
from r2v_core.results.evaluations import evaluations
from r2v_core.runs import stopping
from r2v_core.runs.directories import find_runs, relative_to
from r2v_core.runs.fingerprint import BASE, fingerprint
from r2v_core.runs.manifest import IMPORT, MERGE, RunInput, read_manifest, write_atomic
from r2v_core.runs.parquet import read_parquet, write_parquet
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageResult, UpstreamRun
from r2v_core.stages.ablations import ABLATIONS, FOLDER, PREFIX, Ablation
from r2v_core.stages.at_work import AtWorkError, refuse_if_at_work, wait_for
from r2v_core.stages.experiments import named_models
from r2v_core.stages.plan import plan
from r2v_core.stages.runner import execute, exit_with
from r2v_core.stages.table import get_stage
from r2v_core.trajectory import Episode, episodes_digest

TRACES = "traces.parquet"
_EVALUATED = ("evaluation.methods=[r2v]", "evaluation.sweep=[]")
ONLY_R2V = {
    "train_router": ("training.router.baselines=[random_router]",),
    "evaluate_clean": _EVALUATED,
    "evaluate_noisy": _EVALUATED,
}
"""Stage → overrides: a variant is compared by its ``r2v`` alone, the other methods are not what it ablates. (The rate
of ``random_router`` is r2v's: to calibrate it takes no play.)"""


@dataclass
class Branch:
    """The pipeline of one variant, as far as it differs from the full method's."""

    ctx: StageContext
    variant: str
    overrides: tuple[str, ...]
    made: dict[str, UpstreamRun] = field(default_factory=dict)
    """Stage → the variant's own run of it."""
    _known: dict[str, UpstreamRun] = field(default_factory=dict)

    def counterpart(self, full: UpstreamRun) -> UpstreamRun:
        """The variant's run in the place of one of the full method's; that one itself where nothing differs."""
        key = full.manifest.run_id
        if key not in self._known:
            self._known[key] = self._counterpart(full)
        return self._known[key]

    def _counterpart(self, full: UpstreamRun) -> UpstreamRun:
        if full.manifest.stage in (MERGE, IMPORT):
            return full  # data that no stage made
        stage = get_stage(full.manifest.stage)
        project, partition = self.ctx.project, self.ctx.partition
        upstream = {
            item.role: self.counterpart(UpstreamRun(project / item.path, read_manifest(project / item.path)))
            for item in full.manifest.inputs
        }
        inputs = [_as_input(role, run_, project) for role, run_ in upstream.items()]
        whole = self._loaded(full, ())
        changed = self._loaded(full, self.overrides)
        if fingerprint(stage, whole, partition, full.manifest.inputs) == fingerprint(stage, changed, partition, inputs):
            return full
        only = ONLY_R2V.get(stage.name, ())
        paths = changed.config.paths
        folders = (f"paths.data={paths.data}/{FOLDER}", f"paths.outputs={paths.outputs}/{FOLDER}")
        changed = self._loaded(full, (*self.overrides, *only, *folders))
        wanted = fingerprint(stage, changed, partition, inputs)
        runs = find_runs(project, changed.config.paths, stage, partition.experiment, partition.seed)
        found = next((run_ for run_ in runs if run_.manifest.fingerprint == wanted), None)
        if found is None:
            found = self._make(stage.name, changed, {role: run_.directory for role, run_ in upstream.items()})
        self.made[stage.name] = found
        return found

    def _loaded(self, run_: UpstreamRun, overrides: Iterable[str]) -> LoadedConfig:
        """The configuration that a run was made with, and overrides."""
        config = override_config(Config.model_validate(run_.manifest.config), list(overrides))
        named = named_models(self.ctx.partition, config, self.ctx.project)
        return LoadedConfig(config, {}, Path(run_.manifest.config_path or "configs"), named)

    def _make(self, stage: str, loaded: LoadedConfig, inputs: dict[str, Path]) -> UpstreamRun:
        self.ctx.report.log(f"{self.variant}: {get_stage(stage).title}")
        base = inputs.pop(BASE, None)
        spec = plan(
            stage,
            self.ctx.partition,
            loaded,
            project=self.ctx.project,
            overrides=self.overrides,
            inputs=inputs,
            extend=str(base) if base else None,
            tags=[PREFIX + self.variant],
            notes=f"made for {self.ctx.spec.run_id}",
        )
        try:
            refuse_if_at_work(spec)
            manifest = execute(spec, Reporter(self.ctx.report.stage, self.ctx.report.sink))
        except AtWorkError as other:  # another ablation that needs it too
            if wait_for(other.run, self.ctx.report.log, stopping.check).status != "done":
                return self._make(stage, loaded, inputs | ({BASE: base} if base else {}))
            return UpstreamRun(other.run.directory, read_manifest(other.run.directory))
        stopping.check()  # asked while the manifest was being written
        gc.collect()  # models of the stage before the next one loads its own
        return UpstreamRun(Path(spec.run_dir), manifest)


def _as_input(role: str, run_: UpstreamRun, project: Path) -> RunInput:
    manifest = run_.manifest
    return RunInput(
        role=role, run_id=manifest.run_id, digest=manifest.digest, path=relative_to(run_.directory, project)
    )


def relabelled(run_: UpstreamRun, variant: str) -> list[Episode]:
    """The ``r2v`` episodes of an evaluation under the name of a variant."""
    return [
        episode.model_copy(update={"metadata": {**episode.metadata, "method": variant}})
        for episode in read_parquet(run_.artifact("episodes"), Episode)
        if episode.metadata["method"] == REFERENCE
    ]


def distinct(ablation: Ablation, config: Config, log: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """The variants that can differ in an experiment of this size; says which others are left out, and for which.

    Args:
        ablation: with its variants.
        config: of the full method.
        log: takes a line.
    """
    if ablation.decides is None:
        return dict(ablation.variants)
    kept: dict[Hashable, str] = {}
    for variant, overrides in ablation.variants.items():
        first = kept.setdefault(ablation.decides(override_config(config, list(overrides))), variant)
        if first != variant:
            log(f"{variant} is left out: with so few perturbation seeds it is {first}")
    return {variant: ablation.variants[variant] for variant in kept.values()}


def run(ctx: StageContext) -> StageResult:
    """Make every variant's evaluation and compare it with the full method's (resumable stage by stage)."""
    ablation = ABLATIONS[ctx.spec.stage.removeprefix(PREFIX)]
    full = ctx.inputs["full"]
    episodes: list[Episode] = []
    inputs: list[RunInput] = []
    again: dict[str, list[str]] = {}
    variants = distinct(ablation, Config.model_validate(full.manifest.config), ctx.report.log)
    for variant, overrides in variants.items():
        branch = Branch(ctx, variant, overrides)
        episodes += relabelled(branch.counterpart(full), variant)
        inputs += [_as_input(f"{variant}/{stage}", run_, ctx.project) for stage, run_ in branch.made.items()]
        again[variant] = list(branch.made)
    analysis = Analysis(
        cvar_alpha=ctx.config.training.router.cvar_alpha,
        bootstrap=ctx.config.evaluation.bootstrap,
        confidence=ctx.config.evaluation.confidence,
    )
    tables = frames([*relabelled(full, REFERENCE), *episodes])
    compared = comparisons(tables, analysis)
    write_parquet(ctx.run_dir / TRACES, episodes, Episode)
    _write_evaluations(tables, analysis, list(variants), ctx.run_dir / "evaluations.jsonl")
    write_atomic(ctx.run_dir / "comparisons.csv", compared.to_csv(index=False))
    write_atomic(ctx.run_dir / "preview.md", _preview(ablation, compared, again))
    counts: dict[str, float] = {"variants": len(variants), "runs_made": sum(map(len, again.values()))}
    for row in compared.to_dict("records"):
        counts[f"success_{row['baseline']}"] = float(row["success_baseline"])
        counts[f"difference_{row['baseline']}"] = -float(row["difference"])
    return StageResult(
        digest=digest_of([full.manifest.digest, episodes_digest(episodes)]),
        artifacts={
            "traces": TRACES,
            "evaluations": "evaluations.jsonl",
            "comparisons": "comparisons.csv",
            "preview": "preview.md",
        },
        n_episodes=len(episodes),
        n_success=sum(episode.success for episode in episodes),
        n_steps=sum(len(episode.steps) for episode in episodes),
        counts=counts,
        inputs=inputs,
    )


def _write_evaluations(tables: Frames, analysis: Analysis, variants: Sequence[str], path: Path) -> None:
    """The variants' numbers for the registry, one JSON line each."""
    long = evaluations(tables, analysis)
    long = long[long["method"].isin(variants)].drop(columns="spread").astype(object)
    rows = long.where(long.notna(), None).to_dict("records")
    lines = [json.dumps({**row, "seed": int(row["seed"])}, ensure_ascii=False, allow_nan=False) for row in rows]
    write_atomic(path, "\n".join(lines) + "\n")


def _preview(ablation: Ablation, compared: pd.DataFrame, again: dict[str, list[str]]) -> str:
    lines = [
        f"{ablation.title}. Each variant against the full method on the same tasks and perturbation seeds; a "
        "difference is variant − full.",
        "",
        "| variant | run again | pairs | success | full | difference | interval (full − variant) | p (Holm) | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for row in compared.to_dict("records"):
        stages = ", ".join(again[row["baseline"]]) or "nothing: it is the full method"
        verdict = {"better": "worse than full", "worse": "better than full"}.get(row["verdict"], row["verdict"])
        lines.append(
            f"| {row['baseline']} | {stages} | {row['n_pairs']} | {row['success_baseline']:.1%} "
            f"| {row['success_method']:.1%} | {-row['difference']:+.1%} | {row['difference_ci'] or '–'} "
            f"| {row['p_sign_flip_holm']:.3f} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from r2v_core.errors import R2VError
    from r2v_core.stages.cli import main

    named = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if named not in ABLATIONS:
        listed = "\n".join(f"  {ablation.name:20} {ablation.title}" for ablation in ABLATIONS.values())
        message = f"name an ablation: python -m r2v_core.stages.ablation NAME --help\n{listed}"
        if named not in ("-h", "--help"):
            sys.exit(exit_with(R2VError(message)))
        say(message)
        sys.exit(0)
    sys.exit(main(PREFIX + named, sys.argv[2:]))
