"""Certificates keep their promise: on made-up tasks whose true risk is known, over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.certificates import ALPHA, Population, calibrations
from r2v_core.evaluation.certificates import Guarantee, evidence, fewest_templates, p_value

LOSSES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(LOSSES, st.floats(0.01, 0.99), st.floats(0.01, 0.5))
def test_a_p_value_is_one_and_falls_with_the_bound(losses: list[float], bound: float, delta: float) -> None:
    assert 0.0 <= p_value(losses, bound, delta) <= 1.0
    assert p_value(losses, 0.0, delta) == 1.0 and p_value(losses, 1.0, delta) == 0.0
    assert p_value([1.0] * len(losses), bound, delta) == 1.0


def test_the_capital_is_that_of_the_definition() -> None:
    losses, bound, delta = np.array([0.0, 1.0, 0.25]), 0.5, 0.1
    capital, highest, variance = 1.0, 1.0, 0.25
    for t, loss in enumerate(losses, start=1):
        bet = min(0.75 / (1 - bound), np.sqrt(2 * np.log(1 / delta) / (3 * variance)))
        capital *= 1 - bet * (loss - bound)
        highest = max(highest, capital)
        means = [(0.5 + losses[: i + 1].sum()) / (i + 2) for i in range(t)]
        variance = (0.25 + sum((x - m) ** 2 for x, m in zip(losses, means, strict=False))) / (t + 1)
    assert evidence(losses[None, :], bound, delta)[0] == pytest.approx(highest)


@pytest.mark.parametrize("law", ["none or all", "uneven", "two values"])
def test_evidence_against_a_true_claim_is_rare(law: str) -> None:
    """The expected loss is exactly the bound: 1/δ is reached in at most δ of all draws."""
    random, bound, delta, n, draws = np.random.default_rng(1), 0.1, 0.1, 80, 4000
    losses = {
        "none or all": (random.random((draws, n)) < bound).astype(float),
        "uneven": random.beta(0.2, 1.8, (draws, n)),
        "two values": np.where(random.random((draws, n)) < 0.5, 0.2, 0.0),
    }[law]
    found = (evidence(losses, bound, delta) >= 1 / delta).mean()
    assert found <= delta + 3 * np.sqrt(delta * (1 - delta) / draws)


@pytest.mark.parametrize(
    ("guarantee", "least"),
    [
        (Guarantee("failure", 0.1, 0.1), 29),
        (Guarantee("cvar", 0.1, 0.1, 0.2), 154),
        (Guarantee("failure", 0.0, 0.1), None),
    ],
)
def test_templates_that_are_enough_without_a_failure(guarantee: Guarantee, least: int | None) -> None:
    assert fewest_templates(guarantee) == least
    if least is not None:
        scaled, bound = guarantee.scaled(np.zeros(least), np.zeros(least))
        assert p_value(scaled, bound, 0.1) <= 0.1 < p_value(scaled[1:], bound, 0.1)


def test_cvar_is_at_most_its_bound() -> None:
    rates = np.random.default_rng(0).beta(0.3, 2.0, 1000)
    guarantee = Guarantee("cvar", 0.1, 0.1, 0.2)
    assert np.sort(rates)[-200:].mean() <= guarantee.observed(rates, rates)


def test_whole_calibrations_are_wrong_at_most_as_often_as_they_say() -> None:
    """Shared worlds, tasks of one template alike, risks that do not fall from one threshold to the next."""
    random = np.random.default_rng(3)
    for n in (50, 100):
        outcomes = calibrations(Population(), Guarantee("failure", 0.1, 0.1), n, 150, random)
        wrong = np.mean([o.certified and o.risk > 0.1 for o in outcomes])
        assert wrong <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 150)
        tail = np.mean([o.cvar_certified and o.cvar > 0.1 for o in outcomes])
        assert tail <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 150)
    assert np.mean([o.certified for o in outcomes]) > 0.5  # and it is no empty promise
    assert ALPHA == 0.2
