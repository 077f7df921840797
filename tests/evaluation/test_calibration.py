"""Calibration against hand-made numbers, scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import (
    apply_temperature,
    bin_index,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_table,
    threshold_for_share,
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


def test_temperature_is_recovered_and_improves_calibration() -> None:
    generator = np.random.default_rng(1)
    true = generator.normal(0, 1.5, 20_000)
    y = generator.random(true.size) < expit(true)
    logits = true * 3
    temperature = fit_temperature(logits, y)
    assert temperature == pytest.approx(3, rel=0.05)
    before, after = expit(logits), apply_temperature(logits, temperature)
    assert expected_calibration_error(after, y) < 0.02 < expected_calibration_error(before, y)
    assert brier_score(after, y) < brier_score(before, y)
    for other in (temperature * 0.9, temperature * 1.1):
        assert negative_log_likelihood(logits, y, temperature) < negative_log_likelihood(logits, y, other)


def test_likelihood_agrees_with_scikit_learn() -> None:
    logits, y = np.array([-2.0, 0.5, 3.0]), np.array([0, 1, 0])
    assert negative_log_likelihood(logits, y, 2.0) == pytest.approx(log_loss(y, expit(logits / 2)))


def test_temperature_stops_at_its_bounds() -> None:
    assert fit_temperature([-1.0, 1.0], [0, 1]) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature([-1.0, 1.0], [1, 0]) == pytest.approx(20, rel=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1))
def test_threshold_reaches_the_nearest_possible_share(p: list[float], share: float) -> None:
    array = np.array(p)
    reached = (array > threshold_for_share(p, share)).mean()
    possible = [0.0, 1.0] + [(array > value).mean() for value in array]
    assert abs(reached - share) == pytest.approx(min(abs(other - share) for other in possible))


def test_threshold_by_hand() -> None:
    p = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert threshold_for_share(p, 0.2) == 0.4  # only 0.5 is above
    assert threshold_for_share(p, 0.0) == 0.5
    assert threshold_for_share(p, 1.0) < 0.1


@pytest.mark.parametrize(
    ("p", "y", "what"),
    [([], [], "got 0"), ([0.5], [0, 1], "got 1 and 2"), ([1.5], [1], "0, 1"), ([0.5], [0.3], "labels 0 or 1")],
)
def test_bad_input_is_refused(p: list[float], y: list[float], what: str) -> None:
    for function in (expected_calibration_error, brier_score, reliability_table):
        with pytest.raises(R2VError, match=what):
            function(p, y)


def test_threshold_refuses_an_impossible_share() -> None:
    with pytest.raises(R2VError, match="share"):
        threshold_for_share([0.5], 1.5)
    with pytest.raises(R2VError, match="share"):
        threshold_for_share([], 0.5)
