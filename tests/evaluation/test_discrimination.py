"""AUC and debiased calibration error: against scikit-learn, their definitions, and populations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import expected_calibration_error
from r2v_core.evaluation.discrimination import auc_estimates
from r2v_core.evaluation.metrics import AUC, ScoredSteps, Tally, metric_functions, tally, tally_of_steps
from r2v_core.evaluation.resampling import draw
from r2v_core.evaluation.scores import debiased_calibration_error
from r2v_core.evaluation.statistics import estimate
from tests.evaluation.test_metrics import episodes_table, steps_table

ECE = metric_functions(0.2)["ece_debiased"]


def test_auc_of_drawn_steps_is_scikit_learns_of_steps_that_are_there_as_often() -> None:
    random = np.random.default_rng(0)
    owner, met = random.integers(0, 5, 300), random.integers(0, 4, 300)
    score, label = random.integers(0, 12, 300) / 4.0, random.integers(0, 2, 300).astype(float)  # with ties
    steps = ScoredSteps(owner, met, score, label)
    found = tally_of_steps(tuple("abcde"), tuple("abcde"), (1, 2, 3, 4), True, steps)
    assert AUC.compute(found, np.ones((1, 5)), None)[0] == pytest.approx(roc_auc_score(label, score))
    tasks, worlds = random.integers(0, 3, (40, 5)) + np.eye(5)[0], random.integers(0, 3, (40, 4)) + np.eye(4)[0]
    values = AUC.compute(found, tasks, worlds)
    for row in range(40):
        weights = tasks[row, owner] * worlds[row, met]
        assert values[row] == pytest.approx(roc_auc_score(label, score, sample_weight=weights))
    once = AUC.compute(found, np.ones((1, 5)), worlds)
    assert once[3] == pytest.approx(roc_auc_score(label, score, sample_weight=worlds[3, met]))


def test_a_soft_label_is_a_failure_in_part() -> None:
    steps = ScoredSteps(np.zeros(3, int), np.zeros(3, int), np.array([0.2, 0.5, 0.9]), np.array([0.0, 0.25, 1.0]))
    found = AUC.compute(tally_of_steps(("a",), ("a",), (0,), False, steps), np.ones((1, 1)), None)[0]
    score, label, weight = [0.2, 0.5, 0.5, 0.9], [0, 1, 0, 1], [1, 0.25, 0.75, 1]
    assert found == pytest.approx(roc_auc_score(label, score, sample_weight=weight))


def test_the_order_alone_counts_and_the_difference_is_paired() -> None:
    random = np.random.default_rng(1)
    label = random.integers(0, 2, 400)
    good = label + random.normal(size=400)
    names = [f"t{i % 16}" for i in range(400)]
    found = auc_estimates({"r2v": good, "same": np.exp(good), "noise": random.normal(size=400)}, label, names)
    auc, lead = found["same"]
    assert auc == found["r2v"][0] and lead is not None and lead.value == 0.0 and lead.low < 0 < lead.high
    assert found["r2v"][1] is None and auc.value == pytest.approx(roc_auc_score(label, good))
    auc, lead = found["noise"]
    assert lead is not None and lead.value == pytest.approx(found["r2v"][0].value - auc.value) and lead.low > 0


def test_labels_that_are_all_alike_have_no_auc() -> None:
    found, _ = auc_estimates({"r2v": [0.1, 0.9, 0.3]}, [1, 1, 1], ["a", "b", "c"], n_resamples=20)["r2v"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_score_that_is_missing_somewhere_is_refused() -> None:
    with pytest.raises(R2VError, match="one finite score for each step"):
        auc_estimates({"r2v": [0.1, np.nan]}, [0, 1], ["a", "b"])


def _clustered(random: np.random.Generator, templates: int, steps: int) -> tuple[np.ndarray, ...]:
    """Two scores, labels and templates; steps of one template fail alike, and scores err alike there."""
    hard = random.normal(size=(templates, 1))
    risk = hard + random.normal(size=(templates, steps))
    label = random.random(risk.shape) < expit(risk)
    seen = risk + 1.2 * random.normal(size=(templates, 1)) + 0.7 * random.normal(size=risk.shape)
    poor = risk + 1.0 * random.normal(size=(templates, 1)) + 1.5 * random.normal(size=risk.shape)
    names = np.repeat(np.arange(templates), steps).astype(str)
    return seen.ravel(), poor.ravel(), label.ravel().astype(float), names


def test_auc_intervals_hold_the_truth_where_steps_of_a_template_are_alike() -> None:
    seen, poor, label, _ = _clustered(np.random.default_rng(2), 60_000, 10)
    truth = roc_auc_score(label, seen), roc_auc_score(label, seen) - roc_auc_score(label, poor)
    random = np.random.default_rng(3)
    held, of_steps = np.zeros(2), 0
    for _ in range(200):
        seen, poor, label, names = _clustered(random, 20, 10)
        found = auc_estimates({"r2v": seen, "poor": poor}, label, list(names), n_resamples=300)
        lead = found["poor"][1]
        assert lead is not None
        held += [found["r2v"][0].low <= truth[0] <= found["r2v"][0].high, lead.low <= truth[1] <= lead.high]
        alone = auc_estimates({"r2v": seen}, label, [str(i) for i in range(200)], n_resamples=300)["r2v"][0]
        of_steps += alone.low <= truth[0] <= alone.high
    assert (held / 200 >= 0.91).all() and (held / 200 <= 0.995).all()
    assert of_steps / 200 < 0.91, "taking steps as independent is too sure"


def _tally(p: np.ndarray, y: np.ndarray) -> Tally:
    """Steps of shape (templates, steps) as one method's episodes."""
    rows = [{"task_id": f"t{i:03d}", "template_id": f"t{i:03d}", "z": 1} for i in range(len(p))]
    steps = [
        {"task_id": f"t{i:03d}", "z": 1, "probability": a, "label": b}
        for i, pair in enumerate(zip(p, y, strict=True))
        for a, b in zip(*pair, strict=True)
    ]
    return tally(episodes_table(rows), steps_table(steps))


def _debiased(p: np.ndarray, y: np.ndarray) -> float:
    return float(ECE.compute(_tally(p, y), np.ones((1, len(p))), None)[0])


def test_with_one_step_a_template_it_is_the_estimator_of_kumar_et_al() -> None:
    """Their form needs one probability a bin: Σ n_m/n · ((mean label − p)² − m(1 − m)/(n_m − 1)), m the mean label."""
    random = np.random.default_rng(4)
    p = random.choice([0.15, 0.35, 0.75], size=300)
    y = (random.random(300) < np.clip(p + 0.1, 0, 1)).astype(float)
    expected = 0.0
    for value in np.unique(p):
        n, mean = (p == value).sum(), y[p == value].mean()
        expected += n / 300 * ((mean - value) ** 2 - mean * (1 - mean) / (n - 1))
    assert _debiased(p[:, None], y[:, None]) == pytest.approx(np.sign(expected) * np.sqrt(abs(expected)))
    names = [f"t{i // 3}" for i in range(300)]
    together = _debiased(p.reshape(100, 3), y.reshape(100, 3))
    assert debiased_calibration_error(p, y, names) == pytest.approx(together) != _debiased(p[:, None], y[:, None])


def test_nothing_is_left_of_a_calibrated_score_and_the_truth_of_a_miscalibrated_one() -> None:
    """Steps of one template share how likely they fail, beyond what the score knows: plain ECE is far from 0."""
    random = np.random.default_rng(5)
    calibrated, plain, wrong = [], [], []
    for _ in range(300):
        p = random.choice([0.15, 0.25, 0.55, 0.85], size=(20, 1)).repeat(8, axis=1)
        true = p + np.minimum(p, 1 - p) * random.choice([-0.6, 0.6], size=(20, 1))
        y = (random.random(p.shape) < true).astype(float)
        calibrated.append(_debiased(p, y))
        plain.append(expected_calibration_error(p.ravel(), y.ravel()))
        shifted = np.clip(p + 0.1, 0, 1)
        wrong.append(_debiased(shifted, y))
    squares = np.sign(calibrated) * np.square(calibrated)
    assert abs(squares.mean()) < 3 * squares.std() / np.sqrt(300), "unbiased"
    assert abs(np.mean(calibrated)) < 0.03 and np.mean(plain) > 0.06
    squares = np.sign(wrong) * np.square(wrong)
    assert abs(squares.mean() - 0.1**2) < 3 * squares.std() / np.sqrt(300)


def test_its_interval_holds_the_truth() -> None:
    random = np.random.default_rng(6)
    held = np.zeros(2)
    for _ in range(150):
        p = random.choice([0.25, 0.55, 0.75], size=(20, 1)).repeat(6, axis=1)
        true = p + np.minimum(p, 1 - p) * random.choice([-0.4, 0.4], size=(20, 1))
        y = (random.random(p.shape) < true).astype(float)
        for i, gap in enumerate((0.0, 0.2)):
            made = _tally(p + gap, y)
            drawn = draw({1: made.templates}, {1: made.zs}, 300, 0.95, np.random.default_rng(0))
            found = estimate({1: made}, ECE, drawn)
            held[i] += found.low <= gap <= found.high
    assert (held / 150 >= 0.9).all()


def test_a_bin_of_one_template_tells_nothing() -> None:
    assert _debiased(np.full((1, 5), 0.5), np.ones((1, 5))) == 0.0
