"""The Dagster instance that commands outside of Dagster's own processes use."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from r2v_assets.project import root
from r2v_core.errors import R2VError


def open_instance() -> dg.DagsterInstance:
    """The instance of ``$DAGSTER_HOME``, else the project's own.

    Raises:
        R2VError: if its configuration is wrong, or the database that it names can't be reached.
    """
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(root() / "dagster_home")))
    home.mkdir(parents=True, exist_ok=True)
    try:
        return dg.DagsterInstance.get()
    except Exception as error:  # of whatever library keeps the instance
        inner: BaseException = error
        while (deeper := inner.__cause__ or inner.__context__) is not None:
            inner = deeper
        said = " ".join(str(inner).split())
        raise R2VError(f"the Dagster instance of {home / 'dagster.yaml'} can't be opened: {said}") from error
