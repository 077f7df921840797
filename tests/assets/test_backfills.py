"""Backfills as documented, asked for in a shell and by the UI's request: the daemon of ``workspace.yaml`` runs them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import yaml

from r2v_assets.materialize import failure_text
from r2v_assets.metadata import run_metadata
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.stages.table import BY_ASSET
from tests.assets.conftest import REPOSITORY, Project, make_project
from tests.results.chromium import Page, chromium

TINY = """
defaults: [mrp]
name: NAME
paths: {cache: CACHE}
benchmark:
  max_steps: 4
  splits: {train: 1, router: 1, validation: 1, test: 1}
  options: {goals: [detailed], mix: [{family: treasure_hunter, level: 1}]}
"""
LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[tuple[Project, int]]:
    """A project with two experiments and a variant, its daemon and its webserver, as ``make ui`` starts them."""
    project = make_project(tmp_path_factory.mktemp("backfills"), model_cache)
    shutil.copy(REPOSITORY / "workspace.yaml", project.root)
    for name in ("tiny", "other"):
        text = TINY.replace("NAME", name).replace("CACHE", str(model_cache))
        text += "slm: {model: nowhere/none}\n" if name == "other" else ""
        (project.root / f"configs/{name}.yaml").write_text(text)
    listed = {
        "seeds": [1, 2, 3],
        "experiments": {
            "textworld:expert": {"config": "tiny.yaml"},
            "textworld:expert@other": {"config": "other.yaml"},
        },
    }
    (project.root / "configs/experiments.yaml").write_text(yaml.safe_dump(listed))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = project.start("dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
    try:
        _wait(lambda: _graphql(port, LOCATIONS) is not None, 120, project)
        yield project, port
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _graphql(port: int, query: str, **variables: Any) -> dict[str, Any] | None:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except OSError:
        return None


def _wait(done: Any, seconds: float, project: Project) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise AssertionError((project.root / "out.log").read_text()[-4000:])
        time.sleep(0.5)


def _ended(project: Project, keys: set[str]) -> dict[str, dg.DagsterRunStatus]:
    """Partition → status, once a run of each of the partitions has ended."""
    found: dict[str, dg.DagsterRunStatus] = {}

    def look() -> bool:
        with project.instance() as instance:
            runs = instance.get_runs()
        mine = {run.tags["dagster/partition"]: run for run in runs if run.tags.get("dagster/partition") in keys}
        found.update({key: run.status for key, run in mine.items()})
        return set(mine) == keys and all(run.is_finished for run in mine.values())

    _wait(look, 300, project)
    return found


def _suites(project: Project, folder: str) -> dict[str, RunManifest]:
    runs = [read_manifest(path.parent) for path in (project.root / folder / "runs").glob("*/run_manifest.json")]
    return {run.partition: run for run in runs if run.stage == "task_suite" and run.status == "done"}


def test_a_backfill_that_the_ui_asks_for_runs_under_each_experiments_own_config(served: tuple[Project, int]) -> None:
    project, port = served
    keys = ["textworld:expert|1", "textworld:expert@other|1"]
    selection = {"assetSelection": [{"path": ["task_suite"]}], "partitionNames": keys, "allPartitions": False}
    answer = _graphql(port, LAUNCH, params=selection)
    assert answer is not None and answer["data"]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess"
    assert set(_ended(project, set(keys)).values()) == {dg.DagsterRunStatus.SUCCESS}
    main, other = _suites(project, "data/mrp"), _suites(project, "data/textworld_expert_other")
    assert set(main) == {keys[0]} and set(other) == {keys[1]}  # side by side, in folders of their own
    assert main[keys[0]].config["name"] == "tiny" and other[keys[1]].config["name"] == "other"
    assert (main[keys[0]].variant, other[keys[1]].variant) == ("", "other")


def test_a_job_backfill_from_a_shell_is_launched_by_the_daemon(served: tuple[Project, int]) -> None:
    """``full_pipeline`` with all its ablations takes long; here its small model does not exist, so it ends early.

    ``mrp`` runs to its end in ``test_pipeline.py``.
    """
    project, _ = served
    key = "textworld:expert@other|3"
    command = ("dagster", "job", "backfill", "-m", "r2v_assets.definitions", "-j", "full_pipeline")
    asked = project.run(*command, "--partitions", key, "--noprompt")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert _ended(project, {key}) == {key: dg.DagsterRunStatus.FAILURE}
    with project.instance() as instance:
        (run,) = [run for run in instance.get_runs() if run.tags.get("dagster/partition") == key]
        logs = instance.all_logs(run.run_id)
    assert run.job_name == "full_pipeline" and run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == "r2v_assets.definitions"
    events = [entry.dagster_event for entry in logs if entry.dagster_event is not None]
    made = {event.asset_key.to_user_string() for event in events if event.is_step_materialization and event.asset_key}
    assert made == {"task_suite", "teacher_policy", "trajectory_run", "perturbed_dataset"}
    failures = [failure_text(event) for event in events if event.is_step_failure and event.step_key == "bc_policy"]
    assert len(failures) == 1 and "nowhere/none" in failures[0]
    assert set(BY_ASSET) <= {event.step_key for event in events if event.step_key}


def test_one_assets_seeds_are_backfilled_from_a_shell(served: tuple[Project, int]) -> None:
    project, _ = served
    keys = {f"textworld:expert|{seed}" for seed in (2, 3)}
    command = ("dagster", "job", "backfill", "-m", "r2v_assets.definitions", "-j", "task_suite_job")
    asked = project.run(*command, "--partitions", ",".join(keys), "--noprompt")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert set(_ended(project, keys).values()) == {dg.DagsterRunStatus.SUCCESS}


def test_plots_and_tables_are_seen_on_an_assets_page(served: tuple[Project, int], tmp_path: Path) -> None:
    project, port = served
    key = "textworld:expert|1"
    shutil.copy(REPOSITORY / "docs/results/textworld/frontier_noisy.png", tmp_path / "frontier.png")
    (tmp_path / "preview.md").write_text("| method | success |\n| --- | ---: |\n| slm_only | 12.5% |\n")
    (tmp_path / "main_table.csv").write_text("method,success_rate\nllm_only,0.975\n")
    artifacts = {"frontier": "frontier.png", "preview": "preview.md", "main_table": "main_table.csv"}
    fields = {"provider": "env", "model": "expert", "seed": 1, "created_at": "2026-01-01T00:00:00Z"}
    run = RunManifest(run_id="r", stage="result_tables", benchmark="textworld", partition=key, status="done",
                      output_dir="r", artifacts=artifacts, **fields)  # fmt: skip
    with project.instance() as instance:
        shown = run_metadata(run, tmp_path)
        instance.report_runless_asset_event(dg.AssetMaterialization("result_tables", partition=key, metadata=shown))
    with chromium(tmp_path / "profile") as driver:
        page = Page(driver, tmp_path)
        driver.get(f"http://127.0.0.1:{port}/assets/result_tables?view=partitions&partition={quote(key)}")
        row = "[...document.querySelectorAll('tr')].find(row => row.innerText.startsWith('NAME'))"
        page.wait(row.replace("NAME", "plot/frontier"))
        page.wait(f"{row.replace('NAME', 'table/main_table')}.innerText.includes('0.975')")
        page.wait("[...document.querySelectorAll('td')].some(cell => cell.innerText === '12.5%')")
        image = "[...document.images].some(image => image.naturalWidth > 500)"
        assert not page.run(f"return {image}")
        page.run(f"{row.replace('NAME', 'plot/frontier')}.querySelector('a').click()")
        page.wait(image)


@pytest.mark.parametrize("job", ["mrp", "full_pipeline"])
def test_jobs_need_no_config_whatever_the_partition(job: str) -> None:
    from r2v_assets.definitions import defs

    assert defs.resolve_job_def(job).run_config is None or dg.validate_run_config(defs.resolve_job_def(job), {})
