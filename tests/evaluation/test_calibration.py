"""Calibration against hand-made numbers, scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import (
    bin_index,
    brier_score,
    expected_calibration_error,
    fit_level_and_slope,
    log_loss,
    reliability_table,
)

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=80)


def test_ece_by_hand() -> None:
    # bin (.2, .3]: mean p .25, half positive; bin (.9, 1]: mean p .95, all positive
    p, y = [0.22, 0.28, 0.95, 0.95], [0, 1, 1, 1]
    assert expected_calibration_error(p, y) == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)


def test_bins_are_closed_on_the_right_and_take_zero() -> None:
    assert bin_index([0.0, 0.1, 0.1000001, 0.5, 1.0]).tolist() == [0, 0, 1, 4, 9]


@given(PAIRS)
def test_ece_follows_its_definition(pairs: list[tuple[float, int]]) -> None:
    p, y = np.array(pairs).T
    expected = 0.0
    for m in range(10):
        low, high = np.linspace(0, 1, 11)[[m, m + 1]]
        inside = (p > low) & (p <= high) | ((m == 0) & (p == 0))
        if inside.any():
            expected += inside.mean() * abs(y[inside].mean() - p[inside].mean())
    assert expected_calibration_error(p, y) == pytest.approx(expected)
    assert 0 <= expected_calibration_error(p, y) <= 1


@given(PAIRS)
def test_brier_agrees_with_scikit_learn(pairs: list[tuple[float, int]]) -> None:
    p, y = np.array(pairs).T
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p, pos_label=1))


def test_reliability_table_holds_what_ece_sums() -> None:
    generator = np.random.default_rng(0)
    p = generator.random(500)
    y = generator.random(500) < p**2
    table = reliability_table(p, y)
    assert len(table) == 10 and table["n"].sum() == 500
    gaps = (table["n"] / 500 * (table["observed"] - table["probability"]).abs()).sum()
    assert gaps == pytest.approx(expected_calibration_error(p, y))
    sparse = reliability_table([0.05], [1])
    assert sparse["observed"].notna().sum() == 1


def test_level_and_slope_are_recovered_and_improve_calibration() -> None:
    generator = np.random.default_rng(1)
    true = generator.normal(-0.5, 1.5, 20_000)
    y = generator.random(true.size) < expit(true)
    logits = (true - 0.8) / 0.4
    slope, level = fit_level_and_slope(logits, y)
    assert (slope, level) == (pytest.approx(0.4, rel=0.05), pytest.approx(0.8, abs=0.05))
    before, after = expit(logits), expit(slope * logits + level)
    assert expected_calibration_error(after, y) < 0.02 < expected_calibration_error(before, y)
    assert brier_score(after, y) < brier_score(before, y)
    for factor, shift in ((0.9, 0.0), (1.1, 0.0), (1.0, 0.1), (1.0, -0.1)):
        assert log_loss(slope * logits + level, y) < log_loss(factor * slope * logits + level + shift, y)


def test_level_and_slope_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 2, 4000)
    y = generator.random(logits.size) < expit(0.7 * logits - 0.3)
    theirs = LogisticRegression(C=1e9).fit(logits[:, None], y)
    slope, level = fit_level_and_slope(logits, y)
    assert slope == pytest.approx(theirs.coef_[0, 0], abs=0.01) and level == pytest.approx(
        theirs.intercept_[0], abs=0.01
    )


def test_likelihood_agrees_with_scikit_learn() -> None:
    logits, y = np.array([-2.0, 0.5, 3.0]), np.array([0, 1, 0])
    assert log_loss(logits, y) == pytest.approx(metrics.log_loss(y, expit(logits)))


def test_an_order_is_never_turned_round_and_separable_data_have_a_minimum() -> None:
    slope, level = fit_level_and_slope([-1.0, 1.0, -2.0, 2.0], [1, 0, 1, 0])
    assert slope == pytest.approx(0.01) and level == pytest.approx(0.0, abs=1e-6)
    slope, level = fit_level_and_slope([-1.0, 1.0], [0, 1])
    assert expit(slope + level) == pytest.approx(2 / 3, abs=1e-3)  # Platt's target for the only 1: (1 + 1) / (1 + 2)


@pytest.mark.parametrize(
    ("p", "y", "what"),
    [
        ([], [], "got 0"),
        ([0.5], [0, 1], "got 1 and 2"),
        ([1.5], [1], "0, 1"),
        ([0.5], [1.3], "labels in"),
        ([0.5], [np.nan], "labels in"),
    ],
)
def test_bad_input_is_refused(p: list[float], y: list[float], what: str) -> None:
    for function in (expected_calibration_error, brier_score, reliability_table):
        with pytest.raises(R2VError, match=what):
            function(p, y)
