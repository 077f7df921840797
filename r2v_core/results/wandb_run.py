"""Results as a run at Weights & Biases: numbers, tables and figures; no prompt, no action, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from r2v_core.results.manager import ResultsManager
from r2v_core.results.naming import summarised_seed
from r2v_core.training.tracking import Wandb, start_wandb

TABLES = ("main_table", "comparisons", "ablations", "frontier", "cost_ratios")
"""Tables of a :class:`ResultsManager` that are uploaded, where they have rows."""


def log_results(
    settings: Wandb, manager: ResultsManager, figures: dict[str, Path], run_dir: Path, config: dict[str, Any]
) -> None:
    """Log one experiment's results as the W&B run named after the run directory, in the group ``result_tables``.

    Its summary holds ``<condition>/<method>/<metric>`` over all seeds that were evaluated; tables and figures are under
    ``tables/`` and ``figures/``.

    Raises:
        R2VError: if W&B refuses.
    """
    import wandb

    run = start_wandb(settings, run_dir.name, "result_tables", run_dir, config)
    try:
        run.summary.update(scalars(manager.evaluations))
        for name in TABLES:
            table: pd.DataFrame = getattr(manager, name)
            if not table.empty:
                run.log({f"tables/{name}": wandb.Table(dataframe=table.astype(str))})
        run.log({f"figures/{name}": wandb.Image(str(path)) for name, path in figures.items()})
    finally:
        run.finish()


def scalars(evaluations: pd.DataFrame) -> dict[str, float]:
    """``<condition>/<method>/<metric>`` → value over all seeds, or of the only one."""
    chosen = evaluations[evaluations["seed"] == summarised_seed(list(evaluations["seed"]))]
    rows = chosen.dropna(subset="value")
    names = rows["condition"] + "/" + rows["method"] + "/" + rows["metric"]
    return dict(zip(names, rows["value"].astype(float), strict=True))
