"""AUCs of all rules' scores on the same steps: recounted from the episodes, through bundles, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from r2v_core.evaluation.frame import frames
from r2v_core.results.bundles import Analysis, bundle_frames, make_bundles, read_bundles, write_bundle
from r2v_core.results.risk_scores import risk_scores, rule_scores
from r2v_core.trajectory import Episode

Make = Callable[..., list[Episode]]
ANALYSIS = Analysis(cvar_alpha=0.2, bootstrap=200, confidence=0.95)


def featured(episodes: list[Episode]) -> list[Episode]:
    """Steps with features: entropy follows the risk that r2v sees, log-probability says nothing."""
    made, random = [], np.random.default_rng(0)
    for episode in episodes:
        steps = []
        for step in episode.steps:
            assert step.decision is not None
            features = {
                "entropy": 2.0 * (step.decision.probability or 0.0) + random.normal(0, 0.3),
                "logprob_chosen": random.normal(),
                "state_seen": 0.0,
            }
            steps.append(step.model_copy(update={"decision": step.decision.model_copy(update={"features": features})}))
        made.append(episode.model_copy(update={"steps": steps}))
    return made


def test_scores_are_compared_on_r2vs_own_steps(make_episodes: Make, tmp_path: Path) -> None:
    episodes = featured(make_episodes(methods=("r2v", "entropy_router", "llm_only"), tasks=10, zs=6))
    tables = frames(episodes, rule_scores)
    for bundle in make_bundles(tables, {(c, 1): ("r", "d") for c in ("clean", "noisy")}, {}, ANALYSIS):
        write_bundle(bundle, tmp_path)
    found = risk_scores(bundle_frames(read_bundles(tmp_path)), ANALYSIS)
    assert found.equals(risk_scores(tables, ANALYSIS)), "what a bundle keeps is enough"
    assert found["rule"].tolist() == ["r2v", "entropy_router", "logprob_router", "stuck_router"] * 2
    steps = [
        (step.decision.probability, step.decision.features, not step.decision.candidates[0].progress)
        for e in episodes
        if e.metadata["method"] == "r2v" and e.perturbation_seed is not None
        for step in e.steps
        if step.decision is not None
    ]
    label = [failing for _, _, failing in steps]
    table = found[found["condition"] == "noisy"].set_index("rule")
    own, entropy = (
        roc_auc_score(label, [p for p, _, _ in steps]),
        roc_auc_score(label, [f["entropy"] for _, f, _ in steps]),
    )
    assert table.loc["r2v", "auc"] == pytest.approx(own) and pd.isna(table.loc["r2v", "difference"])
    assert table.loc["entropy_router", "auc"] == pytest.approx(entropy)
    assert table.loc["entropy_router", "difference"] == pytest.approx(own - entropy)
    assert table.loc["stuck_router", "auc"] == 0.5  # the same everywhere: it can't tell
    low, high = (float(part) for part in table.loc["logprob_router", "difference_ci"].strip("[]").split(", "))
    assert 0 < low < own - table.loc["logprob_router", "auc"] < high
    assert (table["n_steps"] == len(steps)).all() and (table["n_failing"] == sum(label)).all()
    assert (table["n_templates"] == 10).all()


def test_steps_of_one_label_tell_nothing(make_episodes: Make) -> None:
    tables = frames(featured(make_episodes(methods=("r2v",), tasks=2, zs=2)), rule_scores)
    alike = tables._replace(steps=tables.steps.assign(label=1.0))
    assert risk_scores(alike, ANALYSIS).empty


def test_bundles_of_before_have_r2vs_own_score_alone(make_episodes: Make) -> None:
    tables = frames(featured(make_episodes(methods=("r2v",), tasks=6, zs=4)))
    assert set(risk_scores(tables, ANALYSIS)["rule"]) == {"r2v"}
