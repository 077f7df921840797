"""A lab's instance: webserver and daemon as services of their own, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import pytest
import yaml

from r2v_core.runs.manifest import read_manifest
from tests.assets.conftest import REPOSITORY, Project, make_project
from tests.assets.test_backfills import LAUNCH, LOCATIONS, TINY, _graphql, _wait

PASSWORD = "of-the-test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*command: str | Path) -> list[str]:
    """The server refuses to run as root."""
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return [*drop, *map(str, command)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database on a server of our own, on loopback, with a password."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path("/tmp") / f"r2v-postgres-{os.getpid()}"  # a socket's path is short, and all of it open to the server
    folder.mkdir(mode=0o755)
    port = free_port()
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        data = folder / "data"
        made = as_postgres(
            programs / "initdb", "-D", data, "-U", "lab", "-A", "scram-sha-256", f"--pwfile={folder}/password"
        )
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        options = f"-k {folder} -h 127.0.0.1 -p {port} -c fsync=off"
        control = (programs / "pg_ctl", "-D", data, "-w")
        subprocess.run(as_postgres(*control, "-o", options, "-l", folder / "log", "start"), check=True, cwd="/")
        try:
            yield f"postgresql+psycopg2://lab:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(as_postgres(*control, "-m", "immediate", "stop"), check=True, cwd="/")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Lab(Project):
    """A project whose instance is the documented one."""

    address: str
    port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        """As the services have it."""
        home = str(self.root / "lab")
        told = {"R2V_ON_FAILURE": f"tee {self.root / 'told.json'}"}
        return {**super().environment, "DAGSTER_HOME": home, "R2V_DAGSTER_POSTGRES": self.address, **told}

    def service(self, *command: str) -> subprocess.Popen[str]:
        """Start what a unit file starts."""
        return self.start_session([str(Path(sys.executable).with_name(command[0])), *command[1:]])

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What PostgreSQL answers."""
        with closing(psycopg2.connect(self.address.replace("+psycopg2", ""))) as con, con.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, model_cache: Path, postgres: str) -> Lab:
    """A project with one tiny experiment, and the instance of configs/lab."""
    project = Lab(make_project(tmp_path_factory.mktemp("lab"), model_cache).root, postgres)
    shutil.copy(REPOSITORY / "workspace.yaml", project.root)
    (project.root / "lab").mkdir()
    shutil.copy(REPOSITORY / "configs/lab/dagster.yaml", project.root / "lab")
    (project.root / "configs/tiny.yaml").write_text(TINY.replace("NAME", "tiny").replace("CACHE", str(model_cache)))
    broken = TINY.replace("NAME", "broken").replace("CACHE", str(model_cache)).replace("treasure_hunter", "no_family")
    (project.root / "configs/broken.yaml").write_text(broken)
    experiments = {"textworld:expert": {"config": "tiny.yaml"}, "textworld:expert@broken": {"config": "broken.yaml"}}
    listed = {"seeds": [1, 2], "experiments": experiments}
    (project.root / "configs/experiments.yaml").write_text(yaml.safe_dump(listed))
    return project


DAEMON = ("dagster-daemon", "run", "-w", "workspace.yaml")


@pytest.fixture(scope="module")
def services(lab: Lab) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Webserver and daemon at work; a test may put another daemon in the place of the one it killed."""
    running = {
        "webserver": lab.service("dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(lab.port)),
        "daemon": lab.service(*DAEMON),
    }
    try:
        _wait(lambda: _graphql(lab.port, LOCATIONS) is not None, 120, lab)
        yield running
    finally:
        for process in running.values():
            for signum in (signal.SIGTERM, signal.SIGKILL):  # a code server whose run was cancelled heeds the last only
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)
                process.wait(60)


def launch(lab: Lab, *keys: str) -> None:
    """The request that the UI sends for partitions of ``task_suite``."""
    wanted = {"assetSelection": [{"path": ["task_suite"]}], "partitionNames": keys, "allPartitions": False}
    answer = _graphql(lab.port, LAUNCH, params=wanted)
    assert answer is not None and answer["data"]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess"


def test_a_backfill_outlives_the_daemon_and_stands_in_postgresql(
    lab: Lab, services: dict[str, subprocess.Popen[str]]
) -> None:
    keys = [f"textworld:expert|{seed}" for seed in (1, 2)]
    launch(lab, *keys)
    _wait(lambda: lab.rows("SELECT 1 FROM runs WHERE status = 'STARTED'"), 120, lab)
    services["killed daemon"] = services["daemon"]
    services["killed daemon"].kill()
    services["killed daemon"].wait()
    services["daemon"] = lab.service(*DAEMON)
    done = "SELECT partition FROM runs WHERE status = 'SUCCESS' ORDER BY partition"
    _wait(lambda: len(lab.rows(done)) == len(keys), 240, lab)
    _wait(lambda: lab.rows("SELECT status FROM bulk_actions") == [("COMPLETED_SUCCESS",)], 120, lab)
    assert lab.rows(done) == [(key,) for key in keys]
    assert lab.rows("SELECT count(*) FROM runs") == [(2,)]
    assert lab.rows("SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'") == [(2,)]
    found = [read_manifest(path.parent) for path in lab.root.glob("data/**/run_manifest.json")]
    made = {run.partition: run.digest for run in found if run.status == "done"}
    assert sorted(made) == keys
    for seed, key in enumerate(keys, start=1):  # as if nothing had been killed
        through = lab.run("r2v_core.stages.task_suite", "--partition", key, "--run-id", f"through-{seed}")
        assert through.returncode == 0, through.stderr
        (path,) = lab.root.glob(f"data/**/through-{seed}/run_manifest.json")
        assert read_manifest(path.parent).digest == made[key]
    assert not list(lab.root.glob("**/*.db"))  # nothing of Dagster's is in SQLite


START = """
mutation ($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } }
}"""
TERMINATE = """
mutation ($ids: [String!]!) {
  terminateRuns(runIds: $ids, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename }
}"""


def test_the_daemon_tells_of_a_failed_run(lab: Lab, services: dict[str, subprocess.Popen[str]]) -> None:
    key = "textworld:expert@broken|1"
    launch(lab, key)
    told = lab.root / "told.json"
    _wait(lambda: told.exists() and told.read_text().endswith("}"), 240, lab)
    event = json.loads(told.read_text())
    assert (event["event"], event["assets"], event["partition"]) == ("run_failed", ["task_suite"], key)
    assert "no_family" in event["error"] and event["failed_steps"] == ["task_suite"]


def test_the_daemon_completes_begun_seeds_once_that_is_switched_on(
    lab: Lab, services: dict[str, subprocess.Popen[str]]
) -> None:
    automatic = "SELECT run_id, partition FROM runs WHERE run_body LIKE '%dagster/from_automation_condition%'"
    assert lab.rows(automatic) == []
    where = {"repositoryName": "__repository__", "repositoryLocationName": "r2v_assets.definitions"}
    answer = _graphql(lab.port, START, sensor={**where, "sensorName": "bring_seeds_up_to_date"})
    assert answer is not None and answer["data"]["startSensor"]["__typename"] == "Sensor", answer
    _wait(lambda: lab.rows(automatic), 240, lab)
    runs = lab.rows(automatic)
    _graphql(lab.port, TERMINATE, ids=[str(run_id) for run_id, _ in runs])  # training is not what this is about
    assert {partition for _, partition in runs} <= {f"textworld:expert|{seed}" for seed in (1, 2)}
    (body,) = lab.rows(f"SELECT run_body FROM runs WHERE run_id = '{runs[0][0]}'")[0]
    assert "trajectory_run" in str(body) and "ablation" not in str(body)


@pytest.mark.parametrize("wrong", ["password", "port"])
def test_a_database_that_can_not_be_reached_is_one_line(lab: Lab, wrong: str) -> None:
    elsewhere = f"postgresql+psycopg2://lab:{PASSWORD}@127.0.0.1:{free_port()}/postgres"
    address = lab.address.replace(PASSWORD, "wrong") if wrong == "password" else elsewhere
    done = Lab(lab.root, address).run("r2v_assets.cli", "demo")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "dagster.yaml can't be opened: " in line and PASSWORD not in line
    assert ("password authentication failed" if wrong == "password" else "Connection refused") in line
