"""Why is a router's calibration on held-out games what it is? Other routers, judged on the same logged steps.

    python benchmarks/router_remedies.py outputs/textworld_study/evaluate_noisy/<run_id> …

Every variant is trained on the run's own router features and calibrated on its validation tasks, then judged on the
steps that the run's ``r2v`` episodes met on test tasks: their features and labels are in the traces, so nothing is
played again and every variant is judged on the same steps. Prints AUC on validation and test, and on test ECE before
and after recalibration and the Brier score, one table a run and the mean over runs.

Variants: all 15 features; subsets of them; the mean of ten routers that differ in their random start; and, instead
of temperature scaling, Platt scaling and isotonic regression.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.agent.features import FEATURES, feature_matrix
from r2v_core.config import Config
from r2v_core.evaluation.calibration import brier_score, expected_calibration_error, fit_temperature
from r2v_core.evaluation.frame import step_label
from r2v_core.models.router import Router, RouterRow
from r2v_core.runs.directories import project_root
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.ablations import PROGRESS, UNCERTAINTY, VERIFIER
from r2v_core.training.lagrangian import fit_failure_model, make_rollouts
from r2v_core.training.router import train_net
from r2v_core.trajectory import Episode

Floats = NDArray[np.float64]
Recalibrate = Callable[[Floats, Floats, Floats], Floats]
"""(validation logits, validation labels, test logits) → test probabilities."""


def temperature(z: Floats, y: Floats, new: Floats) -> Floats:
    """Temperature scaling, what the pipeline does."""
    return expit(new / fit_temperature(z, y))


def platt(z: Floats, y: Floats, new: Floats) -> Floats:
    """Slope and intercept (Platt 1999), without regularisation."""
    return LogisticRegression(C=1e6).fit(z[:, None], y).predict_proba(new[:, None])[:, 1]


def isotonic(z: Floats, y: Floats, new: Floats) -> Floats:
    """A monotone step function (Zadrozny & Elkan 2002)."""
    return IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0).fit(z, y).predict(new)


LENGTHS = ("context_length", "goal_length")
VARIANTS: dict[str, tuple[tuple[str, ...], int, Recalibrate]] = {
    "all 15 features": (FEATURES, 1, temperature),
    "without progress features": ((*UNCERTAINTY, *VERIFIER), 1, temperature),
    "without lengths": (tuple(name for name in FEATURES if name not in LENGTHS), 1, temperature),
    "uncertainty alone": (UNCERTAINTY, 1, temperature),
    "verifier alone": (VERIFIER, 1, temperature),
    "progress alone": (PROGRESS, 1, temperature),
    "all, mean of ten routers": (FEATURES, 10, temperature),
    "without progress, mean of ten": ((*UNCERTAINTY, *VERIFIER), 10, temperature),
    "all, Platt scaling": (FEATURES, 1, platt),
    "all, isotonic regression": (FEATURES, 1, isotonic),
}
"""Name → features, number of routers whose logits are averaged, recalibration."""


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
    for name, (names, n, recalibrate) in VARIANTS.items():
        chosen = tuple(one for one in FEATURES if one in names)
        sides = [[r.features for r in held], [f for f, _ in steps]]
        matrices = [feature_matrix(side, chosen) for side in sides]
        held_z, test_z = _logits(train, chosen, config, run.manifest.seed, n, matrices)
        p = np.clip(recalibrate(held_z, held_y, test_z), 0.0, 1.0)
        found[name] = {
            "validation AUC": roc_auc_score(held_y, held_z),
            "test AUC": roc_auc_score(test_y, p),
            "ECE before": expected_calibration_error(expit(test_z), test_y),
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
    print(f"{run.manifest.partition}: {len(train)} steps to train on, {len(held)} to calibrate, {len(steps)} to judge")
    return pd.DataFrame(found).T


def _logits(
    rows: Sequence[RouterRow],
    names: tuple[str, ...],
    config: Config,
    seed: int,
    n: int,
    matrices: Sequence[NDArray[np.float32]],
) -> list[Floats]:
    """Mean logits of ``n`` routers on each matrix."""
    rollouts, model = make_rollouts(rows, names), fit_failure_model(rows)
    sums = [np.zeros(len(matrix)) for matrix in matrices]
    for start in range(n):
        with tempfile.TemporaryDirectory() as folder:
            random_seed = seed + 1000 * start
            net, _ = train_net(rollouts, model, config.training.router, config.agent, random_seed, Path(folder))
        router = Router(net=net, features=list(names), hidden=list(config.training.router.hidden))
        for total, matrix in zip(sums, matrices, strict=True):
            total += router.logits(matrix)
    return [total / n for total in sums]


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
