"""Who answers for the assets, and where their code is."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg

from r2v_core.runs.stage import Stage

VARIABLE = "R2V_OWNERS"


def owners() -> list[str]:
    """``$R2V_OWNERS``: mail addresses and ``team:<name>``, separated by commas; 'team:r2v' unless set."""
    return [owner.strip() for owner in (os.environ.get(VARIABLE) or "team:r2v").split(",") if owner.strip()]


def code_references(stage: Stage) -> dict[str, Any]:
    """Metadata that opens the stage's function from the asset's page."""
    module, _, function = stage.function.partition(":")
    found = find_spec(module)  # loads the module's packages, not the module
    if found is None or found.origin is None:
        return {}
    lines = Path(found.origin).read_text(encoding="utf-8").splitlines()
    line = next((n for n, text in enumerate(lines, start=1) if text.startswith(f"def {function}(")), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=found.origin, line_number=line, label=f"stage {stage.name}")
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}
