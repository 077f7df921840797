"""Servers of a project whose runs were put there: a scripted small model, a router that asks where it is stuck."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI

from r2v_core.config import LoadedConfig, config_snapshot
from r2v_core.models.router import Router, RouterNet, Scorer
from r2v_core.partition import Partition
from r2v_core.runs.artifacts import digests
from r2v_core.runs.directories import runs_folder
from r2v_core.runs.manifest import RunManifest, utc_now, write_manifest
from r2v_core.runs.reporting import Reporter
from r2v_core.serving.app import bound, make_app, make_server
from r2v_core.serving.opening import Opened, Wanted, open_service
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.table import STAGES
from tests.stages.conftest import ROOT
from tests.teachers.server import Server, running

CONFIG = "configs/small.yaml"
SMALL = """
defaults: [textworld/clean]
name: small
benchmark: {max_steps: 8}
slm:
  engine: scripted
  engine_options:
    script: [{when: kitchen, say: [open fridge, open fridge, look]}, {when: hall, say: [go north, go south]}]
agent: {verifier: false}
teacher: {limits: {attempts: 1, patience_s: 0, backoff_s: 0.001}}
"""
TEACHERS = 'teachers: {{mine: {{provider: openai_compatible, model: tiny, base_url: "{url}/v1"}}}}'


@pytest.fixture
def teacher() -> Iterator[Server]:
    """A server that answers 'look' unless its script says otherwise: the teacher 'mine'."""
    with running() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, teacher: Server) -> Path:
    """A project with runs of the partition 'textworld:mine|1' and of 'textworld:expert|1'."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / CONFIG).write_text(SMALL)
    (tmp_path / "configs/teachers.yaml").write_text(TEACHERS.format(url=teacher.url))
    for key in ("textworld:mine|1", "textworld:expert|1"):
        partition = Partition.parse(key)
        put_runs(tmp_path, partition, partition_config(partition, tmp_path / CONFIG, (), tmp_path))
    return tmp_path


def stuck_router() -> Router:
    """Probability σ(2·state_seen − 1): 0.27 in a new state, 0.73 in one that was shown before."""
    net = RouterNet(1, [], dropout=0.0)
    with torch.no_grad():
        net.layers[0].weight.fill_(2.0)
        net.layers[0].bias.fill_(-1.0)
    calibration = {"statement": "**uncertified**: made up"}
    return Router({"logistic": Scorer([net])}, ["state_seen"], "logistic", threshold=0.5, calibration=calibration)


def put_runs(project: Path, partition: Partition, loaded: LoadedConfig) -> None:
    """Finished runs of policy, verifier and router."""
    for name, files in {"train_dpo": {"adapter": "adapter"}, "train_verifier": {}, "train_router": {}}.items():
        stage = STAGES[name]
        run_dir = runs_folder(project, loaded.config.paths, stage) / f"{name}-{partition.teacher}"
        run_dir.mkdir(parents=True)
        if name == "train_router":
            stuck_router().save(run_dir)
            files = {"router": "router.json"}
        for file in set(files.values()) - {"router.json"}:
            (run_dir / file).mkdir()
        manifest = RunManifest(
            run_id=run_dir.name,
            stage=name,
            benchmark=partition.benchmark,
            provider="openai_compatible",
            model="tiny",
            seed=partition.seed,
            partition=partition.key,
            status="done",
            created_at=utc_now(),
            output_dir=str(run_dir.relative_to(project)),
            config=config_snapshot(loaded.config),
            digest=name,
            artifacts=files,
            artifact_digests=digests(run_dir, files),
        )
        write_manifest(manifest, run_dir)


@dataclass(frozen=True)
class Served:
    """A server under way."""

    url: str
    opened: Opened
    said: list[str]
    """Log lines of the server."""

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    @property
    def name(self) -> str:
        return self.opened.service.name

    def ask(self, *turns: str | list[str], episode: str | None = None, **more: Any) -> Any:
        """The completion of a chat of user and assistant turns; a list is a turn of several text parts."""
        messages: list[Any] = [
            {"role": "assistant" if i % 2 else "user", "content": turn if isinstance(turn, str) else parts(turn)}
            for i, turn in enumerate(turns)
        ]
        headers = {"X-Episode-Id": episode} if episode else {}
        return self.client.chat.completions.create(model=self.name, messages=messages, extra_headers=headers, **more)

    def lines(self) -> list[dict[str, Any]]:
        """The decisions logged so far."""
        return [json.loads(line) for line in Path(self.opened.about["log"]).read_text().splitlines()]


def parts(texts: list[str]) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


Serve = Callable[..., Served]


@pytest.fixture
def serve(project: Path) -> Iterator[Serve]:
    """Start a server of a partition in this process, on a free port."""
    with ExitStack() as running_servers:

        def start(*overrides: str, partition: str = "textworld:mine|1", key: str | None = None, **more: Any) -> Served:
            said: list[str] = []
            wanted = Partition.parse(partition)
            loaded = partition_config(wanted, project / CONFIG, ["teacher.limits.budget_calls=0", *overrides], project)
            opened = open_service(Wanted(wanted, loaded, project, **more), Reporter("serve", said.append))
            listening = running_servers.enter_context(bound("127.0.0.1", 0))
            server = make_server(make_app(opened.service, opened.about, key))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()

            def end() -> None:
                server.should_exit = True
                thread.join()

            running_servers.callback(end)
            return Served(f"http://127.0.0.1:{listening.getsockname()[1]}", opened, said)

        yield start
