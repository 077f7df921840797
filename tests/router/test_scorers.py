"""Scorers: each learns a known law, cross-fitting holds whole templates out, and what is chosen is chosen there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from scipy.special import expit
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from r2v_core.agent.features import FEATURES
from r2v_core.config.schema import AgentConfig, RouterConfig
from r2v_core.digest import derive_seed
from r2v_core.errors import R2VError
from r2v_core.models.router import Router, RouterNet, RouterRow, Scorer
from r2v_core.stages.experiments import load_config
from r2v_core.training.lagrangian import FailureModel, make_rollouts
from r2v_core.training.router_threshold import frontier_area
from r2v_core.training.scorers import SCORERS, Fitting, compare, cross_fitted, train_scorers

MakeRows = Callable[..., list[RouterRow]]
MODEL = FailureModel(0.05, 0.0, 1.0)
ROOT = Path(__file__).parents[2]


def fitting(folder: Path, **config: object) -> Fitting:
    return Fitting(FEATURES, RouterConfig.model_validate({"epochs": 30, **config}), AgentConfig(), 1, folder)


def labels(rows: Sequence[RouterRow]) -> np.ndarray:
    return np.array([row.label for row in rows]) == 1


@pytest.mark.parametrize("name", SCORERS)
def test_each_scorer_tells_failures_apart_on_other_templates(
    name: str, tmp_path: Path, router_rows: list[RouterRow], make_rows: MakeRows
) -> None:
    scorer = Scorer(SCORERS[name](router_rows, fitting(tmp_path)))
    test = make_rows(33, "validation", tasks=20)
    z, y = scorer.logits(fitting(tmp_path).x(test)), labels(test)
    assert (z[y][:, None] > z[~y][None, :]).mean() > 0.82
    again = Scorer(SCORERS[name](router_rows, fitting(tmp_path / "again")))
    assert np.array_equal(z, again.logits(fitting(tmp_path).x(test)))


def test_the_logistic_scorer_is_scikit_learns(tmp_path: Path, router_rows: list[RouterRow]) -> None:
    fit = fitting(tmp_path)
    x, y = fit.x(router_rows), labels(router_rows)
    ours = Scorer(SCORERS["logistic"](router_rows, fit)).logits(x)
    scaled = StandardScaler().fit_transform(x)
    theirs = [
        LogisticRegression(C=c * len(x) / 1000, max_iter=1000).fit(scaled, y).decision_function(scaled)
        for c in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    ]
    assert min(np.abs(ours - z).max() for z in theirs) < 0.01


def test_boosted_trees_are_scikit_learns_and_survive_saving(tmp_path: Path, router_rows: list[RouterRow]) -> None:
    fit = fitting(tmp_path)
    x, y = fit.x(router_rows), labels(router_rows)
    trees = SCORERS["boosting"](router_rows, fit)
    order = np.argsort(~y, kind="stable")  # which of several equally good splits is taken hangs on it, and on the seed
    theirs = GradientBoostingClassifier(
        n_estimators=80,
        learning_rate=0.05,
        max_depth=3,
        min_weight_fraction_leaf=0.03,
        random_state=derive_seed(1, "router", "boosting") % 2**31,
    ).fit(x[order], y[order])
    assert Scorer(trees).logits(x) == pytest.approx(theirs.decision_function(x), abs=1e-9)
    edge = np.repeat(x[:1], 200, axis=0)  # on the very thresholds, where left and right part
    thresholds = theirs.estimators_[0, 0].tree_.threshold
    edge[:, theirs.estimators_[0, 0].tree_.feature[0]] = np.resize(thresholds, 200)
    assert Scorer(trees).logits(edge) == pytest.approx(theirs.decision_function(edge), abs=1e-9)
    router = Router({"boosting": Scorer(trees, 0.8, 0.1)}, list(FEATURES), "boosting")
    router.save(tmp_path / "saved")
    assert np.array_equal(Router.load(tmp_path / "saved").probability(x), router.probability(x))


def test_no_template_is_judged_by_nets_that_saw_it(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows(1, tasks=7)
    seen: list[set[str]] = []

    def remembers(part: Sequence[RouterRow], fit: Fitting) -> list[RouterNet]:
        seen.append({row.template_id for row in part})
        return SCORERS["logistic"](part, fit)

    logits = cross_fitted(rows, remembers, fitting(tmp_path))
    everything = {row.template_id for row in rows}
    held_out = [everything - part for part in seen]
    assert len(seen) == 5 and sorted(name for names in held_out for name in names) == sorted(everything)
    assert logits.shape == (len(rows),) and np.isfinite(logits).all()


def test_what_can_not_be_trained_says_the_base_rate(tmp_path: Path, make_rows: MakeRows) -> None:
    first, second = ([r for r in make_rows(1, tasks=2) if r.template_id == f"router-t{i}"] for i in range(2))
    rows = [row.model_copy(update={"label": False}) for row in first] + second
    logits = cross_fitted(rows, SCORERS["logistic"], fitting(tmp_path))
    assert expit(logits[len(first) :]) == pytest.approx(1 / (len(first) + 2))  # the others all succeed, smoothed
    alone = cross_fitted(second, SCORERS["logistic"], fitting(tmp_path))
    assert np.ptp(alone) > 0  # a single template: in-sample


def test_the_least_log_loss_is_chosen_and_calibrated(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows(4, tasks=12)
    compared = compare(rows, fitting(tmp_path), MODEL)
    assert {one.scorer for one in compared} == set(SCORERS)
    assert [one.log_loss for one in compared] == sorted(one.log_loss for one in compared)
    scorers = train_scorers(rows, compared, fitting(tmp_path))
    assert set(scorers) == {compared[0].scorer, "lagrangian", "logistic"}
    test = make_rows(34, "validation", tasks=40)
    router = Router(scorers, list(FEATURES), compared[0].scorer)
    assert abs(router.probability(fitting(tmp_path).x(test)).mean() - labels(test).mean()) < 0.05
    router.save(tmp_path / "saved")
    again = Router.load(tmp_path / "saved")
    for name in ("", "lagrangian", "logistic"):
        x = fitting(tmp_path).x(test)
        assert np.array_equal(router.probability(x, name), again.probability(x, name))
    with pytest.raises(R2VError, match="trained without the scorer 'forest'; materialise 'router' again"):
        router.probability(fitting(tmp_path).x(test), "forest")


def test_a_configured_scorer_is_used_though_another_is_better(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows(4, tasks=6)
    compared = compare(rows, fitting(tmp_path, scorer="lagrangian"), MODEL)
    assert compared[0].scorer == "lagrangian" and {one.scorer for one in compared} == {"lagrangian", "logistic"}


def test_area_worked_example(make_rows: MakeRows) -> None:
    """Two one-step episodes, one failing, a teacher that never fails: the order decides about the area."""
    rows = [row for row in make_rows(5, tasks=2, seeds=1) if row.step == 0]
    rows = [row.model_copy(update={"label": label}) for row, label in zip(rows, (True, False), strict=True)]
    rollouts, model = make_rollouts(rows, FEATURES), FailureModel(0.0, 0.0, 1.0)
    bad, good = 1 - 1.1 / 1.2, 1 - 0.1 / 1.2  # success, by the surrogate, of an episode that is wrong or right
    knows = (0.5 * ((good + bad) / 2 + good) + 0.5 * 2 * good) / 2
    errs = (0.5 * 2 * (good + bad) / 2 + 0.5 * ((good + bad) / 2 + good)) / 2
    assert frontier_area(np.array([0.9, 0.1]), rollouts, model) == pytest.approx(knows)
    assert frontier_area(np.array([0.1, 0.9]), rollouts, model) == pytest.approx(errs)


def test_a_router_of_version_1_is_read(tmp_path: Path) -> None:
    """It held one net, calibrated by a temperature."""
    net = RouterNet(2, [3], 0.0).eval()
    save_file(net.state_dict(), tmp_path / "router.safetensors")
    held = {"features": ["entropy", "step"], "hidden": [3], "temperature": 2.5, "threshold": 0.4, "rules": {}}
    settings = {"version": 1, **held, "shares": {"r2v": [0.5] * 101}, "calibration": {"met": True}}
    (tmp_path / "router.json").write_text(json.dumps(settings))
    router = Router.load(tmp_path)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    assert router.probability(x) == pytest.approx(expit(Scorer([net]).logits(x) / 2.5))
    assert (router.threshold, router.threshold_at("r2v", 0.3), router.calibration) == (0.4, 0.5, {"met": True})
    router.save(tmp_path / "again")
    assert np.array_equal(Router.load(tmp_path / "again").probability(x), router.probability(x))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["training.router.baselines=[entropi_router]"],
            "no routing rule 'entropi_router'. Did you mean 'entropy_router'",
        ),
        (
            ["training.router.baselines=[slm_only]"],
            "training.router.baselines (override): no calibrated rule 'slm_only'",
        ),
        (
            ["training.router.baselines=[entropy_router]", "evaluation.methods=[r2v, cascade_router]"],
            "'cascade_router' is not calibrated; add it to training.router.baselines",
        ),
    ],
)
def test_methods_that_nothing_is_calibrated_for_are_refused_before_work(overrides: list[str], words: str) -> None:
    with pytest.raises(R2VError) as caught:
        load_config("configs/base.yaml", overrides, project=ROOT)
    assert words in str(caught.value)


def test_methods_follow_the_baselines() -> None:
    loaded = load_config("configs/base.yaml", ["training.router.baselines=[entropy_router]"], project=ROOT)
    played = ["r2v", "slm_only", "llm_only", "entropy_router", "heuristic_router", "oracle_router"]
    assert loaded.config.evaluation.methods == played
