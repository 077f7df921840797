"""Every asset of one partition, end to end with the real small model: a backfill by the daemon, then ``r2v demo``."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from openai import OpenAI
from rich.console import Console

from r2v_assets.demo import demo
from r2v_assets.instance import open_instance
from r2v_assets.materialize import materialize_partition, up_to_date
from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.processes import launch_arguments
from r2v_core.stages.experiments import load_config
from r2v_core.stages.table import STAGES, inputs_of, pipeline
from r2v_core.trajectory import Episode
from tests.assets.conftest import PARTITION, REPOSITORY, Project, make_project
from tests.docs.documented import ASKED, RUN

CONFIG = "configs/small.yaml"
METHODS = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[tuple[Project, str]]:
    """A project after the documented backfill of job ``mrp`` in a shell, and what a demo afterwards printed.

    The daemon is that of ``workspace.yaml``; the partition runs under its experiment's own config. Tables and report
    are made again by the demo.
    """
    project = make_project(tmp_path_factory.mktemp("whole"), model_cache)
    shutil.copy(REPOSITORY / "workspace.yaml", project.root)
    listed = {"seeds": [1, 2, 3, 4, 5], "experiments": {"textworld:expert": {"config": "small.yaml"}}}
    (project.root / "configs/experiments.yaml").write_text(yaml.safe_dump(listed))
    command = ("dagster", "job", "backfill", "-m", "r2v_assets.definitions", "-j", "mrp", "--noprompt")
    asked = project.run(*command, "--partitions", PARTITION)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    daemon = project.start("dagster._daemon", "run", "-w", "workspace.yaml")
    try:
        with project.instance() as instance:
            end = time.monotonic() + 1500
            while not (runs := instance.get_runs()) or not all(run.is_finished for run in runs):
                assert time.monotonic() < end, (project.root / "out.log").read_text()[-4000:]
                time.sleep(1)
            assert [(run.job_name, run.status) for run in runs] == [("mrp", dg.DagsterRunStatus.SUCCESS)]
    finally:
        daemon.terminate()
        daemon.wait(60)
    shutil.rmtree(project.root / "results/small")
    done = project.run("r2v_assets.cli", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        for key in ("R2V_PROJECT", "DAGSTER_HOME"):
            patch.setenv(key, project.environment[key])
        patch.chdir(project.root)
        yield project, done.stdout


@pytest.fixture
def loaded(whole: tuple[Project, str]) -> LoadedConfig:
    return load_config(CONFIG, (), whole[0].root)


def test_progress_and_results_are_printed(whole: tuple[Project, str], loaded: LoadedConfig) -> None:
    out, stages = whole[1], pipeline(loaded.config)
    assert all(f"[{n}/13] {stage.asset}" in out for n, stage in enumerate(stages, start=1))
    assert (
        out.count("is up to date") == 11
        and "2 assets materialised" in out
        and "oracle_router" in out
        and "structured_results" in out
    )


@pytest.mark.parametrize("stage", STAGES)
def test_asset_is_materialised_from_a_finished_run(
    whole: tuple[Project, str], loaded: LoadedConfig, stage: str
) -> None:
    event, *others = whole[0].materializations(STAGES[stage].asset)
    assert len(others) == (stage in ("result_tables", "report"))  # made again after their files were deleted
    manifest = read_manifest(Path(str(event.metadata["run_dir"].value)))
    assert manifest.status == "done" and manifest.stage == stage and manifest.partition == PARTITION
    assert event.tags is not None and event.tags["dagster/data_version"] == manifest.digest
    assert {item.role for item in manifest.inputs} == {role for role, _ in inputs_of(STAGES[stage], loaded.config)}


def test_tables_hold_every_method_and_condition(whole: tuple[Project, str]) -> None:
    path = whole[0].root / "results/small/structured_results/main_table.csv"
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len({(row["method"], row["condition"]) for row in rows}) == 2 * METHODS


@pytest.mark.parametrize("condition", ["clean", "noisy"])
def test_random_asks_at_the_share_that_r2v_came_to(whole: tuple[Project, str], condition: str) -> None:
    episodes = list(read_parquet(_newest(whole[0], f"evaluate_{condition}") / "trajectories.parquet", Episode))
    actors = [step.actor for one in episodes if one.metadata["method"] == "r2v" for step in one.steps]
    rates = {(one.metadata["method"], one.metadata["rate"]) for one in episodes if "rate" in one.metadata}
    assert rates == {("random_router", actors.count("teacher") / len(actors))}


def test_tables_agree_with_the_traces_and_checks_say_so(whole: tuple[Project, str]) -> None:
    verdicts = {}
    with whole[0].instance() as instance:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id):
                event = entry.dagster_event
                if event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION":
                    found = event.event_specific_data
                    verdicts[(found.asset_key.to_user_string(), found.check_name)] = found.passed
    for asset, check in (
        ("task_suite", "no_template_leakage"),
        ("evaluation_clean", "traces_complete"),
        ("evaluation_noisy", "traces_complete"),
        ("result_tables", "table_matches_traces"),
    ):
        assert verdicts[asset, check], check
    assert {("verifier", "verifier_labels_balanced"), ("router", "router_not_degenerate")} <= set(verdicts)


def test_thresholds_were_swept_and_calibrated_by_playing(whole: tuple[Project, str]) -> None:
    root = whole[0].root
    with (root / "results/small/structured_results/frontier.csv").open(newline="") as handle:
        points = {row["method"] for row in csv.DictReader(handle)}
    rules = ("r2v", "entropy_router", "cascade_router", "random_router")
    assert points == {"slm_only", "llm_only", *(f"{rule}@0.3" for rule in rules)}
    (router,) = (root / "outputs/mrp/train_router").glob("*/router.json")
    levels = json.loads(router.read_text())["calibration"]["levels"]
    assert all(found[0]["share"] == 1.0 and found[0]["success"] > 0 for found in levels.values())
    played = (router.parent / "validation_episodes.jsonl").read_text().splitlines()
    assert len(played) == sum(map(len, levels.values())) * 2 * 4  # tasks × seeds


def test_what_was_trained_answers_at_an_address_as_in_its_evaluation(whole: tuple[Project, str]) -> None:
    project = whole[0]
    run_dir = _newest(project, "evaluate_clean")
    episodes = read_parquet(run_dir / "trajectories.parquet", Episode)
    episode = next(one for one in episodes if one.metadata["method"] == "r2v")
    teacher = ("--teacher", "smollm2", "--teacher-option", "max_tokens=12")
    server = project.start("r2v_assets.cli", "serve", PARTITION, "--config", CONFIG, *teacher, "--port", "0")
    try:
        end, log = time.monotonic() + 300, project.root / "out.log"
        while (found := re.search(r"answers at (\S+)/v1 ", log.read_text())) is None:
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        client = OpenAI(base_url=f"{found[1]}/v1", api_key="none", max_retries=0)
        messages: list[Any] = []
        for step in episode.steps[:3]:
            seen = step.observation
            texts = [seen.feedback if messages else f"Goal: {episode.goal}", seen.state]
            messages.append({"role": "user", "content": [{"type": "text", "text": text} for text in texts]})
            told: Any = client.chat.completions.create(model=PARTITION, messages=messages)
            messages.append({"role": "assistant", "content": step.action})
            assert step.decision is not None and told.r2v["threshold"] == step.decision.threshold
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0 and "[serve] stopped" in log.read_text()
    finally:
        server.kill()
        server.wait()
    (decisions,) = project.root.glob("outputs/mrp/serve/*/decisions.jsonl")
    logged = [json.loads(line) for line in decisions.read_text().splitlines()]
    assert len(logged) == min(3, len(episode.steps))
    alone = ("step", "horizon_fraction", "context_length", "goal_length", "state_seen", "unchanged")
    for line, step in zip(logged, episode.steps, strict=False):
        assert step.decision is not None
        expected = step.decision.features
        assert {name: line["features"][name] for name in alone} == {name: expected[name] for name in alone}
        # the evaluation worked for many states at a time, which rounds otherwise
        assert line["features"]["verifier_best"] == pytest.approx(expected["verifier_best"], abs=0.05)
    shutil.rmtree(decisions.parents[1])


def test_an_ablation_reuses_the_pipeline_and_is_registered(whole: tuple[Project, str]) -> None:
    project = whole[0]
    done = project.materialize("ablation_static_threshold")
    assert done.returncode == 0, done.stdout + done.stderr
    (event,) = project.materializations("ablation_static_threshold")
    manifest = read_manifest(Path(str(event.metadata["run_dir"].value)))
    assert [item.role for item in manifest.inputs] == ["full", "static_threshold/evaluate_noisy"]
    made = read_manifest(project.root / manifest.inputs[1].path)
    full = read_manifest(project.root / manifest.inputs[0].path)
    assert made.inputs == full.inputs and made.config["evaluation"]["router_threshold"] == 0.5
    episodes = list(read_parquet(project.root / manifest.output_dir / "traces.parquet", Episode))
    thresholds = {step.decision.threshold for episode in episodes for step in episode.steps if step.decision}
    assert len(episodes) == 2 and thresholds == {0.5}
    sql = "SELECT run_id FROM runs WHERE stage LIKE 'ablation%' OR output_dir LIKE '%/ablations/%' ORDER BY stage"
    listed = project.run("r2v_assets.cli", "registry", "sql", sql).stdout
    assert manifest.run_id in listed and made.run_id in listed


def test_again_everything_is_up_to_date(whole: tuple[Project, str], capsys: pytest.CaptureFixture[str]) -> None:
    demo(PARTITION, CONFIG)
    out = capsys.readouterr().out
    assert out.count("is up to date") == 13 and "Everything was up to date" in out


def test_changed_config_makes_only_its_stages_stale(whole: tuple[Project, str]) -> None:
    project = whole[0]
    changed = load_config(CONFIG, ["evaluation.bootstrap=51"], project.root)
    with open_instance() as instance:
        stale = {
            name for name, s in STAGES.items() if up_to_date(instance, s, Partition.parse(PARTITION), changed) is None
        }
    assert stale == {"evaluate_clean", "evaluate_noisy", "result_tables"}


def test_deleted_files_are_made_again_with_equal_digest(whole: tuple[Project, str], loaded: LoadedConfig) -> None:
    project, partition = whole[0], Partition.parse(PARTITION)
    before = project.materializations("perturbed_dataset")[0]
    (Path(str(before.metadata["run_dir"].value)) / "trajectories.parquet").unlink()
    console = Console(file=(project.root / "again.log").open("w"))
    assert materialize_partition(partition, loaded, {"config": CONFIG}, console) == 1
    after = project.materializations("perturbed_dataset")[0]
    assert after.metadata["run_id"] != before.metadata["run_id"]
    assert after.metadata["digest"] == before.metadata["digest"]


def test_killed_evaluation_resumes_with_nothing_lost_and_nothing_twice(whole: tuple[Project, str]) -> None:
    project = whole[0]
    command = ["r2v_core.stages.evaluate_noisy", "--config", CONFIG, "--run-id", "killed"]
    process = project.start(*command)
    run_dir = project.root / "outputs/mrp/evaluate_noisy/killed"
    written = run_dir / "trajectories.jsonl"
    while not (written.exists() and written.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, (project.root / "out.log").read_text()
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert read_manifest(run_dir).status == "running"
    before = written.read_bytes()
    again = project.run(*command)
    assert again.returncode == 0, again.stderr
    assert "episodes are on disk already" in again.stderr and written.read_bytes().startswith(
        before[: before.rfind(b"\n")]
    )
    manifest = read_manifest(run_dir)
    played = [json.loads(line)["episode_id"] for line in written.read_text().splitlines()]
    (event,) = project.materializations("evaluation_noisy")
    assert len(played) == len(set(played)) == manifest.n_episodes == event.metadata["episodes"].value
    assert manifest.status == "done" and manifest.digest == event.metadata["digest"].value
    shutil.rmtree(run_dir)


def test_failure_is_the_stages_own_error(whole: tuple[Project, str]) -> None:
    project = whole[0]
    overrides = [f"paths.cache={CONFIG}"]  # a file, not a folder
    changed = load_config(CONFIG, overrides, project.root)
    settings = {"config": CONFIG, "overrides": overrides}
    console = Console(file=(project.root / "failure.log").open("w"))
    with pytest.raises(R2VError, match="FileExistsError"):
        materialize_partition(Partition.parse("textworld:expert|2"), changed, settings, console, assets=["task_suite"])


@pytest.mark.parametrize(
    ("stage", "overrides", "killed"),
    [
        ("candidates", ["candidates.batch_size=6"], False),
        ("train_router", [], False),
        ("evaluate_noisy", [], True),
    ],
)
def test_two_processes_share_the_work_and_make_the_same_data(
    whole: tuple[Project, str], stage: str, overrides: list[str], killed: bool
) -> None:
    project, made = whole[0], []
    for processes in (1, 2):
        run_id = f"{stage}_by_{processes}"
        settings = ["--config", CONFIG, "--run-id", run_id, "--overrides", "agent.parallel=1", *overrides]
        command = [*launch_arguments((f"r2v_core.stages.{stage}",), processes), *settings]
        if killed and processes == 2:
            _kill_at_work(project, run_id, command)
        done = project.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (f"[{stage} 1] " in done.stderr) == (processes == 2), done.stderr  # the second process took its part
        (run_dir,) = (path for path in project.root.glob(f"*/mrp/*/{run_id}") if path.is_dir())
        made.append(read_manifest(run_dir))
        assert not list(run_dir.glob("*.part*"))
        shutil.rmtree(run_dir)
    alone, together = made
    assert together.digest == alone.digest and together.counts == alone.counts
    assert together.n_episodes == alone.n_episodes and together.n_steps == alone.n_steps


def _kill_at_work(project: Project, run_id: str, command: list[str]) -> None:
    """Start a stage as two processes and kill them and their launcher once each has an episode on disk."""
    launcher = project.start(*command)
    end = time.monotonic() + 300
    while sum(path.stat().st_size > 0 for path in project.root.glob(f"*/mrp/*/{run_id}/trajectories*.jsonl")) < 2:
        assert launcher.poll() is None and time.monotonic() < end, (project.root / "out.log").read_text()[-4000:]
        time.sleep(0.05)
    for process in [launcher, *psutil.Process(launcher.pid).children(recursive=True)]:
        process.kill()
    launcher.wait()
    (run_dir,) = project.root.glob(f"*/mrp/*/{run_id}")
    assert read_manifest(run_dir).status != "done" and list(run_dir.glob("*.part1.jsonl"))


def test_two_processes_train_together(whole: tuple[Project, str]) -> None:
    project = whole[0]
    settings = ["--config", CONFIG, "--run-id", "bc_by_2"]
    done = project.run(*launch_arguments(("r2v_core.stages.train_bc",), 2), *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = project.root / "outputs/mrp/train_bc/bc_by_2"
    manifest = read_manifest(run_dir)
    log = [json.loads(line)["step"] for line in (run_dir / "training_log.jsonl").read_text().splitlines()]
    assert manifest.status == "done" and log == [1, 2, 3]
    assert (run_dir / "adapter" / "adapter_model.safetensors").exists() and not (run_dir / "checkpoints").exists()
    shutil.rmtree(run_dir)


def test_what_can_not_be_shared_says_so(whole: tuple[Project, str]) -> None:
    settings = ["--config", CONFIG, "--run-id", "perturbed_by_2"]
    done = whole[0].run(*launch_arguments(("r2v_core.stages.perturb",), 2), *settings)
    assert done.returncode != 0 and "stage 'perturb' runs in one process, not in 2" in done.stderr


SMALLER = {"max_steps=80": "max_steps=4", "max_steps=40": "max_steps=2"}
"""What documented commands say at the demo's size → what is enough for this project."""


@pytest.fixture(scope="module")
def documented(whole: tuple[Project, str]) -> Project:
    """The project with what documented commands name: the demo's config (this project's own), a file of episodes."""
    project, _ = whole
    for path in list(project.root.glob("*/mrp/**/run_manifest.json")):  # runs whose files an earlier test deleted
        if not all((path.parent / file).exists() for file in read_manifest(path.parent).artifacts.values()):
            shutil.rmtree(path.parent)
    assert not DataRegistry(project.root).rebuild().problems
    small = load_config(CONFIG, (), project.root).config.model_dump(mode="json")
    del small["evaluation"]["methods"]  # which follow from the baselines, and those of configs that inherit differ
    (project.root / "configs/mrp.yaml").write_text(yaml.safe_dump(small))
    shutil.copy(_newest(project, "collect") / "trajectories.jsonl", project.root / "theirs.jsonl")
    return project


def _newest(project: Project, stage: str) -> Path:
    """The run directory of a stage's newest finished run in the seed of the demo."""
    runs = [(read_manifest(path.parent), path.parent) for path in project.root.glob("*/mrp/**/run_manifest.json")]
    mine = [(made.created_at, run) for made, run in runs if (made.stage, made.status, made.seed) == (stage, "done", 1)]
    return max(mine)[1]


def _filled(command: str, project: Project) -> str:
    """A command with real run ids in the place of those that people put in."""
    for said, enough in SMALLER.items():
        command = command.replace(said, enough)
    stage = re.search(r"r2v_core\.stages\.(\w+)", command)
    made_by = {"RUN1": "collect", "RUN2": "perturb", "EVALUATION": "evaluate_noisy"}
    for name, made in {**made_by, "RUN": stage[1] if stage else "train_bc"}.items():
        command = re.sub(rf"\b{name}\b", _newest(project, made).name, command)
    return command


@pytest.mark.parametrize("number", range(len(RUN)), ids=[re.sub(r"\W+", "-", command)[:60] for command in RUN])
def test_documented_command(documented: Project, number: int) -> None:
    """In the order of the pages, each as a shell runs it."""
    command = _filled(RUN[number], documented)
    environment = {key: value for key, value in documented.environment.items() if key != "R2V_PROJECT"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=documented.root,
        env=environment | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_documented_query(documented: Project, number: int) -> None:
    """Of a registry that knows what the commands above have made."""
    registry = DataRegistry(documented.root)
    assert not registry.sync().problems
    frame = registry.sql(ASKED[number])
    assert len(frame.columns) >= 3 and (len(frame) or "upstream_digest" in ASKED[number]), ASKED[number]
