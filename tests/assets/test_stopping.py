"""Ctrl-C, SIGTERM and *Terminate*, as a terminal and the UI send them: what is at work ends in few and true words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from r2v_core.runs.manifest import RunManifest, read_manifest
from tests.assets.conftest import PARTITION, REPOSITORY, Project

COLD = ["paths.cache=cold", "benchmark.splits.train=60"]
"""Games to compile, so that there is time to stop."""
LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename } }"""
PARAMETERS = {
    "selector": {
        "repositoryLocationName": "r2v_assets.definitions",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["task_suite"]}],
        "assetCheckSelection": [],
    },
    "mode": "default",
    "runConfigData": {"ops": {"task_suite": {"config": {"config": "configs/small.yaml", "overrides": COLD}}}},
    "executionMetadata": {
        "tags": [
            {"key": "dagster/partition", "value": PARTITION},
            {"key": "dagster/partition/experiment", "value": "textworld:expert"},
            {"key": "dagster/partition/seed", "value": "1"},
        ]
    },
}
"""What the UI sends for *Materialize* of one partition."""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"


def wait_for(condition: Callable[[], Any], project: Project, seconds: float = 180.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, (project.root / "out.log").read_text()[-4000:]
        time.sleep(0.1)
    return found


def start(project: Project, *args: str) -> subprocess.Popen[str]:
    """A command in the foreground of a terminal of its own."""
    return project.start_session(project.command(*args))


def running(project: Project) -> list[RunManifest]:
    found = [read_manifest(path.parent) for path in project.root.glob("data/mrp/runs/*/run_manifest.json")]
    return [manifest for manifest in found if manifest.status == "running"]


def manifests(project: Project) -> list[RunManifest]:
    return [read_manifest(path.parent) for path in project.root.glob("**/run_manifest.json")]


def processes(project: Project) -> list[str]:
    """Everything that works in the project."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"R2V_PROJECT={project.root}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command]


def only_run(project: Project) -> dg.DagsterRun:
    with project.instance() as instance:
        return instance.get_runs(limit=1)[0]


def test_ctrl_c_ends_a_materialisation_without_tracebacks(project: Project) -> None:
    process = start(project, *project.materialize_args("task_suite,trajectory_run", overrides=COLD))
    wait_for(lambda: running(project), project)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) != 0
    said = (project.root / "out.log").read_text()
    assert "Traceback" not in said and "Stack Trace" not in said, said
    (manifest,) = manifests(project)
    assert (manifest.stage, manifest.status) == ("task_suite", "partial")
    assert f"what is done is kept in {manifest.output_dir}; materialise it again to resume" in said
    assert only_run(project).status == dg.DagsterRunStatus.CANCELED
    wait_for(lambda: not processes(project), project, 10)


def test_a_cancelled_run_ends_although_its_interrupt_was_lost(project: Project) -> None:
    """Nothing interrupts the process here; that the run is being cancelled is written down, and that is enough."""
    process = start(project, *project.materialize_args("task_suite,trajectory_run", overrides=COLD))
    wait_for(lambda: running(project), project)
    with project.instance() as instance:
        instance.report_run_canceling(instance.get_runs(limit=1)[0])
    process.wait(timeout=120)
    (manifest,) = manifests(project)
    assert (manifest.stage, manifest.status) == ("task_suite", "partial")
    assert only_run(project).status == dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_in_one_line(project: Project, how: signal.Signals) -> None:
    overrides = [word for override in COLD for word in ("--overrides", override)]
    process = start(project, "r2v_assets.cli", "demo", "--config", "configs/small.yaml", *overrides)
    (manifest,) = wait_for(lambda: running(project), project)
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    assert process.wait(timeout=120) == 128 + how
    said = (project.root / "out.log").read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"task_suite of {PARTITION} stopped by SIGTERM; what is done is kept in ")
    assert [one.status for one in manifests(project)] == ["partial"] and manifest.output_dir in said


def test_the_ui_cancels_what_it_is_told_to_and_ends_with_all_it_started(project: Project) -> None:
    shutil.copy(REPOSITORY / "workspace.yaml", project.root)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def graphql(query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        url, kind = f"http://127.0.0.1:{port}/graphql", {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=30) as answer:
                return json.loads(answer.read())["data"]
        except OSError:
            return None

    def launch() -> RunManifest:
        answer = graphql(LAUNCH, params=PARAMETERS)
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess"
        (manifest,) = wait_for(lambda: running(project), project)
        return manifest

    process = start(project, "r2v_assets.ui", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
    try:
        wait_for(lambda: graphql("{ version }"), project)
        launch()
        run = only_run(project)
        assert graphql(TERMINATE, id=run.run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        wait_for(lambda: only_run(project).status == dg.DagsterRunStatus.CANCELED, project, 90)
        assert [manifest.status for manifest in manifests(project)] == ["partial"]
        manifest = launch()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=150) == 143
    finally:
        process.kill()
    assert not processes(project)
    said = (project.root / "out.log").read_text()
    assert "Traceback" not in said and said.splitlines()[-1] == (
        f"stopped by SIGTERM: runs can be resumed by materialising again; {manifest.run_id}: stopped by SIGTERM"
    )
    assert [one.status for one in manifests(project)] == ["partial"]
    assert only_run(project).status == dg.DagsterRunStatus.CANCELED
