"""The face of every compute: a planned run in, its final manifest out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg

from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.spec import StageSpec

SPEC_NAME = "spec.json"


class StageCompute(dg.ConfigurableResource, ABC):
    """Runs a stage somewhere and waits for it."""

    @abstractmethod
    def run(
        self, context: dg.AssetExecutionContext, spec: StageSpec, resources: Mapping[str, Any] = MappingProxyType({})
    ) -> RunManifest:
        """Run a planned stage to its end and return its manifest, status ``done``.

        Args:
            resources: what a job asks for this time, over what the cluster's profile says.

        Raises:
            R2VError: if the resources make no sense here.
            StageFailure: described by the stage's own error; the run directory says the same.
        """

    def adopt(self, context: dg.AssetExecutionContext, spec: StageSpec) -> StageSpec:
        """The planned run, or the same work if it is under way already and an earlier orchestrator was killed."""
        return spec


def write_spec(spec: StageSpec) -> Path:
    """Put the planned run into its directory as the file that the stage is started with."""
    path = Path(spec.run_dir) / SPEC_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    return path
