"""A project of its own for the orchestration's tests: configs, Dagster instance, data, all in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTITION = "textworld:expert|1"
SMALL = """
defaults: [mrp]
name: small
paths: {results: results/small, cache: CACHE}
benchmark:
  max_steps: 8
  splits: {train: 3, router: 2, validation: 2, test: 2}
  options:
    goals: [detailed]
    mix: [{family: treasure_hunter, level: 4}]
perturbations:
  seeds: {train: 1, router: 6, validation: 4, test: 1}
slm: {max_action_tokens: 6, max_prompt_tokens: 160}
training:
  bc: {max_steps: 3, batch_size: 2}
  verifier: {max_steps: 2, batch_size: 2, layers: 2}
  dpo: {max_steps: 1, batch_size: 1, consistency_batch: 1}
  router: {epochs: 5, cvar_epsilon: 0.6, baselines: [entropy_router, cascade_router, random_router]}
candidates: {k: 4, max_states: 12}
evaluation: {bootstrap: 50, sweep: [0.3]}
"""


@dataclass(frozen=True)
class Project:
    """A project folder and how to use it from a shell."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the shell exports: the project, its Dagster instance, no network."""
        return {
            **os.environ,
            "R2V_PROJECT": str(self.root),
            "DAGSTER_HOME": str(self.root / "dagster_home"),
            "PYTHONPATH": str(REPOSITORY),
            "HF_HUB_OFFLINE": "1",
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",  # as .env has it
        }

    def command(self, *args: str) -> list[str]:
        """A module of this Python with arguments."""
        return [sys.executable, "-m", *args]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m …`` in the project."""
        return subprocess.run(
            self.command(*args), cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=900
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start ``python -m …`` in the project, output to ``out.log``."""
        (self.root / "out.log").unlink(missing_ok=True)
        return self._start(self.command(*args))

    def start_session(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command in a session of its own, as a terminal or a service has one; output after what is there."""
        return self._start(command, session=True)

    def _start(self, command: list[str], session: bool = False) -> subprocess.Popen[str]:
        with (self.root / "out.log").open("a") as log:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=session,
            )

    def materialize_args(self, asset: str, partition: str = PARTITION, **settings: Any) -> list[str]:
        """Arguments of ``dagster asset materialize`` with the small config unless told otherwise."""
        settings = {"config": "configs/small.yaml", **settings}
        config = json.dumps({"ops": {name: {"config": settings} for name in asset.split(",")}})
        common = ["asset", "materialize", "-m", "r2v_assets.definitions", "--select", asset]
        return ["dagster", *common, "--partition", partition, "--config-json", config]

    def materialize(self, asset: str, partition: str = PARTITION, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Materialise an asset as a user would in a shell."""
        return self.run(*self.materialize_args(asset, partition, **settings))

    def instance(self) -> dg.DagsterInstance:
        """The project's Dagster instance."""
        return dg.DagsterInstance.from_config(str(self.root / "dagster_home"))

    def materializations(self, asset: str) -> list[dg.AssetMaterialization]:
        """What Dagster knows of an asset, newest first."""
        with self.instance() as instance:
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
        return [event for record in records if (event := record.asset_materialization) is not None]


def make_project(root: Path, cache: Path) -> Project:
    """A project with the repository's configs, a small experiment and an empty Dagster instance."""
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    (root / "configs" / "small.yaml").write_text(SMALL.replace("CACHE", str(cache)))
    (root / "dagster_home").mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", root / "dagster_home")
    return Project(root)


@pytest.fixture
def project(tmp_path: Path, model_cache: Path) -> Project:
    """A fresh project."""
    return make_project(tmp_path, model_cache)
