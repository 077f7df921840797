"""The Dagster instance that commands outside of Dagster's own processes use."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from r2v_assets.project import root


def open_instance() -> dg.DagsterInstance:
    """The instance of ``$DAGSTER_HOME``, else the project's own."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(root() / "dagster_home")))
    home.mkdir(parents=True, exist_ok=True)
    return dg.DagsterInstance.get()
