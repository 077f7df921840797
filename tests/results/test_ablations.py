"""Ablations: each runs again what it changes and nothing else, resumes, is compared in pairs, and reaches the tables.

The stages' work is replaced by functions that only write digests of what they were given, so that the whole pipeline
passes in seconds; planning, fingerprints, manifests, comparison and tables are the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from r2v_core.agent.features import FEATURES
from r2v_core.config import LoadedConfig, section
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.results import ResultsManager
from r2v_core.runs import stopping
from r2v_core.runs.directories import find_runs
from r2v_core.runs.fingerprint import fingerprint
from r2v_core.runs.manifest import RunManifest, read_manifest, write_manifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages import runner
from r2v_core.stages.ablation import distinct
from r2v_core.stages.ablation import run as run_ablation
from r2v_core.stages.ablations import ABLATIONS, FEATURE_GROUPS, FOLDER
from r2v_core.stages.experiments import load_config
from r2v_core.stages.inputs import find_inputs
from r2v_core.stages.plan import plan
from r2v_core.stages.result_tables import run as run_tables
from r2v_core.stages.table import STAGES, get_stage
from r2v_core.trajectory import Episode, episodes_digest

Make = Callable[..., list[Episode]]
PARTITION = Partition("textworld", "expert", 1)
CONFIG = """
name: test
paths: {data: data, outputs: outputs, results: results/test, cache: data/cache}
training: {router: {baselines: [entropy_router, verifier_router, random_router]}}
evaluation: {bootstrap: 50}
"""
FROM_ROUTER = {"train_router", "evaluate_noisy"}
FROM_FEATURES = {"router_features", *FROM_ROUTER}
FROM_DPO = {"train_dpo", *FROM_FEATURES}


class Pipeline:
    """A project whose stages do nothing but say what they would have depended on."""

    def __init__(self, root: Path, make: Make) -> None:
        self.root = root
        self.make = make
        self.ran: list[tuple[str, dict[str, Any]]] = []
        """Stage and the config sections it ran with."""
        self.stop_at: str | None = None

    def loaded(self, *overrides: str) -> LoadedConfig:
        return load_config(self.root / "configs" / "test.yaml", list(overrides), project=self.root)

    def function(self, name: str) -> Callable[[StageContext], StageResult]:
        if name.startswith("ablation_"):
            return run_ablation
        return run_tables if name == "result_tables" else self.work

    def work(self, ctx: StageContext) -> StageResult:
        name = ctx.spec.stage
        if name == self.stop_at:
            self.stop_at = None
            with stopping.held():  # as a training does
                os.kill(os.getpid(), signal.SIGTERM)
                raise stopping.Stopped(stopping.asked() or signal.SIGKILL, "saved at step 3 of 7")
        reads = {key: section(ctx.config, key) for key in get_stage(name).sections}
        self.ran.append((name, reads))
        artifacts, digest = {}, digest_of([name, reads, [run.manifest.digest for run in ctx.inputs.values()]])
        if name.startswith("evaluate"):
            condition = name.removeprefix("evaluate_")
            methods = ctx.config.evaluation.methods
            episodes = self.make(conditions=(condition,), seeds=(ctx.seed,), tasks=3, zs=2, methods=methods)
            write_parquet(ctx.run_dir / "trajectories.parquet", episodes, Episode)
            artifacts, digest = {"episodes": "trajectories.parquet"}, digest_of([digest, episodes_digest(episodes)])
        if name == "train_router":  # the tables say what its calibration proves
            artifacts = {"settings": "router.json"}
            (ctx.run_dir / "router.json").write_text(
                json.dumps({"calibration": {"statement": "nothing was certified"}})
            )
        return StageResult(digest=digest, artifacts=artifacts)

    def execute(self, stage: str, *overrides: str) -> RunManifest:
        spec = plan(stage, PARTITION, self.loaded(*overrides), project=self.root)
        return runner.execute(spec, Reporter(stage))

    def ablate(self, name: str, *overrides: str) -> tuple[RunManifest, list[tuple[str, dict[str, Any]]]]:
        self.ran.clear()
        return self.execute(f"ablation_{name}", *overrides), list(self.ran)


def simulated(root: Path, make_episodes: Make, patch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline in a project, the work of its stages replaced."""
    made = Pipeline(root, make_episodes)
    patch.setattr(runner, "stage_function", made.function)
    patch.setattr("r2v_core.stages.result_tables.save_figures", lambda *args: args[-1].mkdir() or {})
    return made


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, make_episodes: Make) -> Path:
    """A project whose stages have run up to the evaluations; nobody changes it."""
    root = tmp_path_factory.mktemp("evaluated") / "project"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "test.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        made = simulated(root, make_episodes, patch)
        for stage in STAGES:
            if stage not in ("result_tables", "report"):
                made.execute(stage)
    return root


@pytest.fixture
def pipeline(evaluated: Path, tmp_path: Path, make_episodes: Make, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A copy of that project, to go on with."""
    root = tmp_path / "project"
    shutil.copytree(evaluated, root)
    return simulated(root, make_episodes, monkeypatch)


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("no_bc", {"train_bc", "candidates", *FROM_DPO}),
        ("no_brier", FROM_ROUTER),
        ("no_temperature", FROM_ROUTER),
        ("cost_ratio", FROM_FEATURES),
        ("preference_sweep", FROM_DPO),
        ("unseen_noise", {"perturb", "train_bc", "train_verifier", "candidates", *FROM_DPO}),
        ("no_preference", FROM_DPO),
        ("no_consistency", FROM_DPO),
        ("no_verifier", FROM_FEATURES),
        ("no_risk_calibration", FROM_ROUTER),
        ("static_threshold", {"evaluate_noisy"}),
        ("no_self_correction", FROM_FEATURES),
        ("feature_groups", FROM_ROUTER),
        ("risk_sweep", FROM_ROUTER),
    ],
)
def test_what_is_changed_is_run_again_and_nothing_else(pipeline: Pipeline, name: str, again: set[str]) -> None:
    before = {path: path.read_bytes() for path in pipeline.root.glob("[do]*/**/run_manifest.json")}
    manifest, ran = pipeline.ablate(name)
    assert {stage for stage, _ in ran} == again
    changed = {
        variant: [override for override in overrides if _differs(pipeline, override)]
        for variant, overrides in ABLATIONS[name].variants.items()
    }
    assert len(ran) == sum(len(again) for overrides in changed.values() if overrides)
    last = [reads for stage, reads in ran if stage == "evaluate_noisy"]
    assert all(reads["evaluation"]["methods"] == ["r2v"] for reads in last)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {item.role for item in manifest.inputs} == {"full"} | {
        f"{variant}/{stage}" for variant, overrides in changed.items() if overrides for stage in again
    }
    for item in manifest.inputs[1:]:
        assert f"/{FOLDER}/" in item.path and read_manifest(pipeline.root / item.path).digest == item.digest
    found = find_inputs(STAGES["evaluate_clean"], pipeline.loaded(), PARTITION, pipeline.root, {})
    assert not any(FOLDER in item.path for item in found)  # the pipeline never takes an ablation's run for its own


def _differs(pipeline: Pipeline, override: str) -> bool:
    base, changed = pipeline.loaded(), pipeline.loaded(override)
    return base.config != changed.config


def test_a_variant_starts_from_the_configuration_of_the_full_run(pipeline: Pipeline) -> None:
    other = ("training.dpo.max_steps=7", "training.router.epochs=9")
    for stage in ("train_dpo", "router_features", "train_router", "evaluate_noisy"):
        pipeline.execute(stage, *other)
    _, ran = pipeline.ablate("no_consistency")  # of what today's configuration would make, not of the newest try
    assert dict(ran)["train_dpo"]["training.dpo"]["max_steps"] == 20
    _, ran = pipeline.ablate("no_consistency", *other)
    reads = dict(ran)
    assert reads["train_dpo"]["training.dpo"]["max_steps"] == 7
    assert reads["train_dpo"]["training.dpo"]["consistency_weight"] == 0.0
    assert reads["train_router"]["training.router"]["epochs"] == 9


def test_again_the_same_runs_are_found(pipeline: Pipeline) -> None:
    first, _ = pipeline.ablate("no_consistency")
    second, ran = pipeline.ablate("no_consistency")
    assert ran == [] and second.digest == first.digest
    assert [item.run_id for item in second.inputs] == [item.run_id for item in first.inputs]


def test_stopped_it_goes_on_where_it_was(pipeline: Pipeline) -> None:
    pipeline.stop_at = "train_router"
    with pytest.raises(stopping.Stopped, match="stopped by SIGTERM, saved at step 3 of 7"):
        pipeline.execute("ablation_no_consistency")
    assert [stage for stage, _ in pipeline.ran][-2:] == ["train_dpo", "router_features"]
    (stopped,) = (pipeline.root / "outputs" / FOLDER / "train_router").glob("*/run_manifest.json")
    (ablation,) = (pipeline.root / "outputs").glob("ablation_no_consistency/*/run_manifest.json")
    for path in (stopped, ablation):
        found = json.loads(path.read_text())
        assert (found["status"], found["error"]) == ("partial", "stopped by SIGTERM, saved at step 3 of 7")
    manifest, ran = pipeline.ablate("no_consistency")
    assert [stage for stage, _ in ran] == ["train_router", "evaluate_noisy"]
    assert manifest.status == "done" and json.loads(stopped.read_text())["status"] == "done"


def test_variants_are_compared_in_pairs_and_reach_the_tables(pipeline: Pipeline) -> None:
    pipeline.execute("result_tables")
    folder = pipeline.root / "results" / "test" / "structured_results"
    assert pd.read_csv(folder / "ablations.csv").empty
    manifest, _ = pipeline.ablate("no_consistency")
    row = pd.read_csv(pipeline.root / manifest.output_dir / "comparisons.csv").iloc[0]
    assert (row["method"], row["baseline"], row["n_pairs"], row["verdict"]) == ("r2v", "no_consistency", 6, "not shown")
    assert row["difference"] == 0.0  # the made-up episodes are the same on both sides
    lines = (pipeline.root / manifest.output_dir / "evaluations.jsonl").read_text().splitlines()
    assert {json.loads(line)["method"] for line in lines} == {"no_consistency"}
    pipeline.ablate("risk_sweep")
    pipeline.execute("result_tables")
    table = pd.read_csv(folder / "ablations.csv")
    assert set(table["ablation"]) == {"no_consistency", "risk_sweep"} and len(table) == 1 + 9
    assert set(table["method"]) == {"r2v"} and (table["n_pairs"] == 6).all()
    main = pd.read_csv(folder / "main_table.csv")
    assert not set(main["method"]) & set(table["baseline"])
    assert ResultsManager(folder).ablations["ablation"].tolist() == table["ablation"].tolist()


def test_a_training_that_was_extended_is_ablated_with_its_extension(pipeline: Pipeline) -> None:
    (first,) = find_runs(pipeline.root, pipeline.loaded().config.paths, STAGES["train_dpo"])
    spec = plan("train_dpo", PARTITION, pipeline.loaded(), project=pipeline.root, extend=first.manifest.run_id)
    runner.execute(spec, Reporter("train_dpo"))
    for stage in ("router_features", "train_router", "evaluate_clean", "evaluate_noisy"):
        pipeline.execute(stage)
    _, ran = pipeline.ablate("no_consistency")
    assert sorted(name for name, _ in ran) == sorted([*FROM_DPO, "train_dpo"])


@pytest.mark.parametrize("stage", ["merge", "import"])
def test_data_that_no_stage_made_are_taken_as_they_are(pipeline: Pipeline, stage: str) -> None:
    (trained,) = find_runs(pipeline.root, pipeline.loaded().config.paths, STAGES["train_bc"])
    folder = pipeline.root / "data" / "runs" / stage
    folder.mkdir()
    (collected,) = find_runs(pipeline.root, pipeline.loaded().config.paths, STAGES["collect"])
    write_manifest(collected.manifest.model_copy(update={"run_id": stage, "stage": stage, "inputs": []}), folder)
    inputs = [
        item.model_copy(update={"run_id": stage, "path": f"data/runs/{stage}"}) if item.role == "trajectories" else item
        for item in trained.manifest.inputs
    ]
    write_manifest(trained.manifest.model_copy(update={"inputs": inputs}), trained.directory)
    _, ran = pipeline.ablate("no_consistency")
    assert {name for name, _ in ran} == FROM_DPO


def test_an_ablation_of_another_evaluation_is_left_out(pipeline: Pipeline) -> None:
    pipeline.ablate("static_threshold")
    for stage in ("train_dpo", "router_features", "train_router", "evaluate_clean", "evaluate_noisy"):
        pipeline.execute(stage, "training.dpo.max_steps=7")
    pipeline.execute("result_tables", "training.dpo.max_steps=7")
    assert pd.read_csv(pipeline.root / "results/test/structured_results/ablations.csv").empty


def test_every_override_is_a_change_that_some_stage_reads(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "test.yaml").write_text(CONFIG)
    base = load_config(tmp_path / "configs" / "test.yaml", [], project=tmp_path)
    for ablation in ABLATIONS.values():
        for overrides in ablation.variants.values():
            changed = load_config(tmp_path / "configs" / "test.yaml", list(overrides), project=tmp_path)
            differs = [
                s
                for s in STAGES.values()
                if fingerprint(s, base, PARTITION, []) != fingerprint(s, changed, PARTITION, [])
            ]
            assert differs or base.config == changed.config
    assert sorted(name for names in FEATURE_GROUPS.values() for name in names) == sorted(FEATURES)


def test_a_sweep_leaves_out_what_so_few_worlds_cannot_tell_apart(tmp_path: Path) -> None:
    """With two worlds the worst fifth and the worst half are both one world; with three all tails differ."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "test.yaml").write_text(CONFIG)
    sweep, said = ABLATIONS["risk_sweep"], list[str]()

    def kept(*overrides: str) -> set[str]:
        config = load_config(tmp_path / "configs" / "test.yaml", list(overrides), project=tmp_path).config
        return set(distinct(sweep, config, said.append))

    assert kept() == set(sweep.variants) and not said
    two = ("perturbations.seeds.router=2", "perturbations.seeds.validation=2")
    assert kept(*two) == {name for name in sweep.variants if not name.startswith("alpha_0.5")}
    assert said[0] == ("alpha_0.5_epsilon_0.1 is left out: with so few perturbation seeds it is alpha_0.2_epsilon_0.1")
    one = ("perturbations.seeds.router=1", "perturbations.seeds.validation=1")
    assert kept(*one) == {"alpha_0.2_epsilon_0.1", "alpha_0.2_epsilon_0.2", "alpha_0.2_epsilon_0.3"}
    assert kept(*one, "training.router.guarantee=cvar") == set(sweep.variants), "α bounds the risk itself"


def test_without_the_full_evaluation_it_says_what_to_make(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "test.yaml").write_text(CONFIG)
    loaded = load_config(tmp_path / "configs" / "test.yaml", [], project=tmp_path)
    with pytest.raises(R2VError, match="--select evaluation_noisy"):
        plan("ablation_no_verifier", PARTITION, loaded, project=tmp_path)
