"""What would other features or another scorer have made of a router? Judged on the same logged steps.

    python benchmarks/router_remedies.py outputs/textworld_study/evaluate_noisy/<run_id> …

Every variant is trained on the run's own router features, its level and slope fitted by cross-fitting on the same, and
judged on the steps that the run's ``r2v`` episodes met on test tasks: their features and labels are in the traces, so
nothing is played again and every variant is judged on the same steps. Prints AUC on validation and test, and on test
ECE before and after calibration and the Brier score, one table a run and the mean over runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.agent.features import FEATURES, feature_matrix
from r2v_core.config import Config
from r2v_core.evaluation.calibration import brier_score, expected_calibration_error
from r2v_core.evaluation.frame import step_label
from r2v_core.models.router import RouterRow
from r2v_core.runs.directories import project_root
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.ablations import FEATURE_GROUPS
from r2v_core.training.lagrangian import fit_failure_model
from r2v_core.training.scorers import SCORERS, Fitting, compare, train_scorers
from r2v_core.trajectory import Episode

VARIANTS: dict[str, tuple[tuple[str, ...], str]] = {
    **{f"all features, {scorer}": (FEATURES, scorer) for scorer in SCORERS},
    **{
        f"without {group} features, logistic": (tuple(f for f in FEATURES if f not in names), "logistic")
        for group, names in FEATURE_GROUPS.items()
    },
    **{f"{group} features alone, logistic": (names, "logistic") for group, names in FEATURE_GROUPS.items()},
}
"""Name → features, scorer."""


def upstream(project: Path, run: UpstreamRun, role: str) -> UpstreamRun:
    """An input of a run."""
    path = project / next(item.path for item in run.manifest.inputs if item.role == role)
    return UpstreamRun(path, read_manifest(path))


def judged(project: Path, run: UpstreamRun) -> pd.DataFrame:
    """One row a variant."""
    config = Config.model_validate(run.manifest.config)
    features = upstream(project, upstream(project, run, "router"), "features")
    rows = list(JsonlStore(features.artifact("features"), RouterRow))
    train, held = ([row for row in rows if row.split == split] for split in ("router", "validation"))
    steps = [
        (step.decision.features, label)
        for episode in read_parquet(run.artifact("episodes"), Episode)
        if episode.metadata["method"] == "r2v"
        for step in episode.steps
        if step.decision is not None and not np.isnan(label := step_label(step))
    ]
    held_y, test_y = (np.array(labels, dtype=float) for labels in ([r.label for r in held], [y for _, y in steps]))
    found = {}
    sides = [[r.features for r in held], [f for f, _ in steps]]
    for name, (names, kind) in VARIANTS.items():
        router = config.training.router.model_copy(update={"scorer": kind})
        chosen = [one for one in FEATURES if one in names]
        with tempfile.TemporaryDirectory() as folder:
            fitting = Fitting(chosen, router, config.agent, run.manifest.seed, Path(folder))
            compared = compare(train, fitting, fit_failure_model(train))
            scorer = train_scorers(train, compared, fitting)[kind]
        held_x, test_x = (feature_matrix(side, chosen) for side in sides)
        p, before = scorer.probability(test_x), expit(scorer.logits(test_x))
        found[name] = {
            "validation AUC": roc_auc_score(held_y, scorer.logits(held_x)),
            "test AUC": roc_auc_score(test_y, p),
            "ECE before": expected_calibration_error(before, test_y),
            "ECE": expected_calibration_error(p, test_y),
            "Brier": brier_score(p, test_y),
        }
    share = float(test_y.mean())
    found["constant (share on validation)"] = {
        "validation AUC": 0.5,
        "test AUC": 0.5,
        "ECE before": abs(share - float(held_y.mean())),
        "ECE": abs(share - float(held_y.mean())),
        "Brier": brier_score(np.full(len(test_y), held_y.mean()), test_y),
    }
    print(f"{run.manifest.partition}: {len(train)} steps to train on, {len(held)} of validation, {len(steps)} to judge")
    return pd.DataFrame(found).T


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of finished evaluations")
    args = parser.parse_args()
    tables = [judged(project_root(), UpstreamRun(path, read_manifest(path))) for path in args.runs]
    for table in tables:
        print(table.to_string(float_format="{:.3f}".format), end="\n\n")
    if len(tables) > 1:
        print(sum(tables[1:], tables[0]).div(len(tables)).to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
