"""The run registry as a Dagster resource. Only the orchestrator writes it; stages never do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from r2v_assets.project import root
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest

if TYPE_CHECKING:
    from r2v_core.registry import DataRegistry


class RegistryResource(dg.ConfigurableResource):
    """``data/registry.duckdb`` of the project."""

    def open(self) -> DataRegistry:
        """The registry; its file is opened for each call only."""
        from r2v_core.registry import DataRegistry  # DuckDB comes with it: not while Dagster loads definitions

        return DataRegistry(project=root())

    def register_with_inputs(self, run_dir: str, log: dg.DagsterLogManager) -> None:
        """Register a run and the runs that it made for itself on the way (ablations do)."""
        self.register(run_dir, log)
        try:
            inputs = read_manifest(Path(run_dir)).inputs
        except R2VError:
            return
        for item in inputs:
            if "/" in item.role:
                self.register(str(root() / item.path), log)

    def register(self, run_dir: str, log: dg.DagsterLogManager) -> None:
        """Register a run, finished or not. A run that never began has nothing to register.

        The registry is an index of what lies on disk: if it can't be written, the run is not lost, so this is logged
        with the remedy and does not fail the asset.
        """
        if not (Path(run_dir) / MANIFEST_NAME).exists():
            return
        try:
            self.open().register(Path(run_dir))
        except R2VError as error:
            log.error(f"run not registered: {error}\nOnce that is solved: r2v registry rebuild")
