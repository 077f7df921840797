"""One real SLURM cluster for the whole session, and projects whose stages run on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from r2v_assets.assets import ASSETS
from r2v_assets.compute.slurm import SlurmCompute
from r2v_assets.materialize import failure_text
from r2v_assets.registry import RegistryResource
from r2v_assets.settings import RunSettings
from r2v_assets.slurm.deploy import deploy
from r2v_assets.slurm.onemachine import ACCOUNT, Cluster
from r2v_assets.slurm.onemachine_programs import check_installed
from r2v_assets.slurm.profile import load_profile
from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.stages.table import BY_ASSET
from tests.assets.conftest import PARTITION, REPOSITORY, Project, make_project

PROFILE = """
login: {login}
shared: {root}
environment:
  venv: {venv}
  set: {{PYTHONPATH: "{repository}", HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1", PYTHONDONTWRITEBYTECODE: "1"}}
  pass: [R2V_TEST_API_KEY]
defaults: {{account: {account}, cpus: 1, gpus: 0, memory: 2G, time: "10"}}
cpu: {{partition: cpu}}
gpu: {{partition: gpu, gpu_type: a100}}
assets:
  verifier: {{gpus: 1}}
warn_s: 20
poll_s: 1
max_jobs: 6
"""


@dataclass(frozen=True)
class SlurmProject(Project):
    """A project whose stages run on the test cluster."""

    cluster: Cluster

    @property
    def environment(self) -> dict[str, str]:
        """What the shell exports."""
        return {
            **super().environment,
            **self.cluster.environment,
            "R2V_COMPUTE": "slurm",
            "R2V_SLURM_PROFILE": "test",
        }

    def records(self, stage: str) -> list[dict[str, Any]]:
        """Every slurm_job.json of a stage's runs, oldest first."""
        paths = sorted(self.root.glob("*/mrp/**/slurm_job.json"))
        return [json.loads(path.read_text()) for path in paths if _stage_of(path.parent) == stage]

    def manifests(self, stage: str) -> list[RunManifest]:
        """Manifests of a stage's runs, oldest first."""
        found = [read_manifest(path.parent) for path in self.root.glob("**/run_manifest.json")]
        return sorted((run for run in found if run.stage == stage), key=lambda run: run.created_at)

    def episodes(self) -> list[str]:
        """Ids of the collected episodes on disk, in file order."""
        lines = [line for path in self.root.glob("**/trajectories.jsonl") for line in path.read_text().splitlines()]
        return [json.loads(line)["episode_id"] for line in lines if line.endswith("}")]

    def edit_profile(self, **changes: Any) -> None:
        """Change top-level keys of the profile; dictionaries are merged into theirs."""
        path = self.root / "configs/slurm/test.yaml"
        data = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(data))

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Rows of the project's registry."""
        rows: list[dict[str, Any]] = DataRegistry(project=self.root).sql(query).to_dict("records")
        return rows

    def stage_pids(self) -> list[int]:
        """Processes of stages that work on this project's runs."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if any(w.startswith(b"r2v_core.stages.") for w in words) and any(
                    w.startswith(str(self.root).encode()) for w in words
                ):
                    found.append(int(path.parent.name))
        return found

    def pause_stage(self, run: Materialization | None = None, episodes: int = 3) -> int:
        """Wait until a stage has some episodes on disk, then stop it where it is; returns its process id."""
        wait_for(
            lambda: len(self.episodes()) >= episodes or (run is not None and run.ended()), 120, "the first episodes"
        )
        assert run is None or not run.ended(), run.error()
        (pid,) = self.stage_pids()
        os.kill(pid, signal.SIGSTOP)
        return pid


def _stage_of(run_dir: Path) -> str:
    return str(json.loads((run_dir / "spec.json").read_text())["stage"])


class Materialization(threading.Thread):
    """One asset being materialised in this process while the test does things to its job."""

    def __init__(self, project: SlurmProject, asset: str = "trajectory_run", **settings: Any) -> None:
        super().__init__(daemon=True)
        self.project = project
        self.asset = asset
        self.settings = {"config": "configs/small.yaml", "overrides": [], **settings}
        self.instance = project.instance()
        self.result: dg.ExecuteInProcessResult | None = None
        self.raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = dg.materialize(
                [one for one in ASSETS if one.key.to_user_string() == self.asset],
                resources={
                    "compute": SlurmCompute(profile="test", echo=False),
                    "registry": RegistryResource(),
                    "settings": RunSettings(),
                },
                instance=self.instance,
                partition_key=PARTITION,
                run_config={"ops": {self.asset: {"config": self.settings}}},
                raise_on_error=False,
            )
        except BaseException as error:
            self.raised = error

    def finish(self, seconds: float = 240.0) -> dg.ExecuteInProcessResult:
        """Wait for its end."""
        self.join(seconds)
        assert self.result is not None, self.raised or f"still at work after {seconds} s:\n" + "\n".join(self.log())
        return self.result

    def ended(self) -> bool:
        """Whether it has ended."""
        return not self.is_alive()

    def done(self) -> RunManifest:
        """Wait for its end, which has to be good; the run's manifest."""
        result = self.finish()
        assert result.success, self.error()
        return self.project.manifests(BY_ASSET[self.asset].name)[-1]

    def error(self) -> str:
        """Wait for its end, which has to be a failure; what a user reads."""
        result = self.finish()
        (event,) = [event for event in result.all_events if event.is_step_failure]
        return failure_text(event)

    def log(self) -> list[str]:
        """Log lines so far, as the UI shows them."""
        runs = self.instance.get_runs(limit=1)
        return [entry.user_message for entry in self.instance.all_logs(runs[0].run_id)] if runs else []

    def says(self, text: str, seconds: float = 90.0) -> None:
        """Wait until a log line holds a text."""
        wait_for(lambda: any(text in line for line in self.log()), seconds, f"'{text}' in the log")


def wait_for(condition: Callable[[], object], seconds: float = 90.0, what: str = "") -> Any:
    """Wait until a condition holds; returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:.0f} s for {what or condition}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A complete cluster; a machine without the packages gets the line that installs them."""
    try:
        check_installed()
    except R2VError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("slurm")
    os.environ["DAGSTER_SLURM_SSH_CONTROL_DIR"] = str(root / "c")
    with Cluster(root) as running:
        yield running


@pytest.fixture(scope="session")
def game_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled games, made once for all projects of these tests."""
    return tmp_path_factory.mktemp("games")


def make_slurm_project(root: Path, cache: Path, cluster: Cluster, *, ssh: bool) -> SlurmProject:
    """A project with a profile of the test cluster, its environment deployed."""
    project = SlurmProject(make_project(root, cache).root, cluster)
    login: dict[str, Any] = {"host": "local"}
    if ssh:
        login = {
            "host": "127.0.0.1", "user": "root", "port": cluster.ssh_port, "key": str(cluster.ssh_key),
            "host_keys": "accept-new", "known_hosts": str(cluster.root / "known_hosts"),
        }  # fmt: skip
    text = PROFILE.format(login=json.dumps(login), root=root, venv=sys.prefix, repository=REPOSITORY, account=ACCOUNT)
    (root / "configs" / "slurm" / "test.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        use(project, patch)
        deploy(load_profile("test", root), root, install=False, say=lambda line: None)
    return project


def use(project: SlurmProject, patch: pytest.MonkeyPatch) -> None:
    """Let this process be in the project as a shell is."""
    for name in ("SLURM_CONF", "PATH", "DAGSTER_HOME", "R2V_PROJECT", "R2V_SLURM_PROFILE"):
        patch.setenv(name, project.environment[name])
    patch.chdir(project.root)


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory, game_cache: Path, cluster: Cluster) -> tuple[SlurmProject, str]:
    """A project whose task suite was made by a job, asked for in a shell over SSH; and what the shell showed."""
    project = make_slurm_project(tmp_path_factory.mktemp("first"), game_cache, cluster, ssh=True)
    done = project.materialize("task_suite")
    assert done.returncode == 0, told(done)
    return project, told(done)


def with_tasks(first: SlurmProject, root: Path, game_cache: Path, cluster: Cluster, *, ssh: bool) -> SlurmProject:
    """A fresh project that has a task suite already."""
    project = make_slurm_project(root, game_cache, cluster, ssh=ssh)
    shutil.copytree(first.root / "data/mrp", root / "data/mrp")
    return project


def clear(cluster: Cluster) -> None:
    """End all jobs, and wait for it: the next test starts with an empty queue."""
    cluster.run("scancel", "--quiet", "--full", "--user", "root")
    cluster.wait(lambda: not cluster.run("squeue", "--noheader"), 60, "jobs to end")


@pytest.fixture
def project(
    tmp_path: Path,
    game_cache: Path,
    cluster: Cluster,
    first: tuple[SlurmProject, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SlurmProject]:
    """A project with a task suite, Dagster on the login node."""
    project = with_tasks(first[0], tmp_path, game_cache, cluster, ssh=False)
    use(project, monkeypatch)
    yield project
    clear(cluster)


@pytest.fixture
def ssh_project(
    tmp_path: Path,
    game_cache: Path,
    cluster: Cluster,
    first: tuple[SlurmProject, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SlurmProject]:
    """A project with a task suite, the login node reached by SSH."""
    project = with_tasks(first[0], tmp_path, game_cache, cluster, ssh=True)
    use(project, monkeypatch)
    yield project
    clear(cluster)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command printed."""
    return done.stdout + done.stderr
