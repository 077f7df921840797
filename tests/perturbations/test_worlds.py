"""Worlds differ as configured, for all tasks alike; and what that adds to a tail can be told from chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.made_up import tally_of
from r2v_core.evaluation.metrics import Tally, cvar_failure, cvar_failure_null, seed_rates
from r2v_core.perturbations import FAMILIES, Noise, make_noise
from r2v_core.perturbations.apply import perturb_episode
from r2v_core.perturbations.worlds import severities, severity
from r2v_core.trajectory import Episode
from tests.perturbations.noise_cases import episodes, settings, step_context

WORLDS, STEPS, P = 400, 40, 0.2


def rates(noise: Noise, task: str) -> np.ndarray:
    """How often a tool call fails in each world."""
    return np.array(
        [
            np.mean([noise.intercept(step_context(step, z, task), "go east") is not None for step in range(STEPS)])
            for z in range(WORLDS)
        ]
    )


def with_spread(spread: float) -> Noise:
    return make_noise(settings(error=P).model_copy(update={"severity_spread": spread}))


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_rates_vary_between_worlds_as_configured(spread: float) -> None:
    found = rates(with_spread(spread), "t")
    level = np.array([min(1.0, P * severity(z, "tool_flakiness", spread)) for z in range(WORLDS)])
    assert abs(found.mean() - level.mean()) < 4 * np.sqrt(P * (1 - P) / WORLDS / STEPS)
    binomial = np.mean(level * (1 - level)) / STEPS
    assert found.var() == pytest.approx(level.var() + binomial, rel=0.25)
    assert (level.var() > binomial) == (spread > 0)


def test_a_severe_world_is_severe_for_every_task() -> None:
    first, second = (rates(with_spread(1.0), task) for task in ("a", "b"))
    alike, unlike = (rates(with_spread(0.0), task) for task in ("a", "b"))
    assert np.corrcoef(first, second)[0, 1] > 0.6 and abs(np.corrcoef(alike, unlike)[0, 1]) < 0.2


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 2.0]))
def test_severity_is_positive_and_its_order_does_not_hang_on_the_spread(z: int, spread: float) -> None:
    assert severity(z, "distractors", spread) > 0 and severity(z, "distractors", 0.0) == 1.0
    assert severities(z, FAMILIES, 0.0) == {} and set(severities(z, FAMILIES, spread)) == set(FAMILIES)
    milder = severity(z, "distractors", spread) < severity(z + 1, "distractors", spread)
    assert milder == (severity(z, "distractors", 0.3) < severity(z + 1, "distractors", 0.3))


def test_severity_has_mean_1_and_the_spread_that_is_asked_for() -> None:
    drawn = np.array([severity(z, "distractors", 0.5) for z in range(20_000)])
    assert drawn.mean() == pytest.approx(1.0, abs=0.02) and drawn.std() == pytest.approx(0.5, abs=0.03)


@given(episodes())
def test_the_world_is_in_the_trace_unless_worlds_are_alike(episode: Episode) -> None:
    plain, worldly = (perturb_episode(episode, with_spread(spread), 3) for spread in (0.0, 0.5))
    assert "severity" not in plain.metadata and plain.metadata == episode.metadata
    assert worldly.metadata["severity"] == severities(3, FAMILIES, 0.5)


def played(random: np.random.Generator, shared: float) -> Tally:
    """24 tasks in 20 worlds; ``shared`` is what a world adds to or takes from every task's failure rate."""
    tasks, worlds = 24, 20
    rate = random.beta(0.6, 2.4, (tasks, 1)) + shared * random.choice([-1.0, 1.0], (1, worlds))
    success = (random.random((tasks, worlds)) >= rate).astype(float)
    return tally_of(success, 0)


def test_a_method_that_fails_alike_everywhere_reads_as_such() -> None:
    """Its CVaR is its null value within the error of the null; a method that has bad worlds is far above."""
    random = np.random.default_rng(5)
    above = []
    for shared in (0.0, 0.2):
        gaps = []
        for _ in range(40):
            found = played(random, shared)
            tail = float(cvar_failure(seed_rates(found, np.ones((1, len(found.tasks))))[0], 0.2))
            gaps.append(tail - cvar_failure_null(found, 0.2, random, repeats=100))
        above.append((np.mean(gaps), np.std(gaps) / np.sqrt(len(gaps))))
    assert abs(above[0][0]) < 4 * above[0][1] < 0.02
    assert above[1][0] > 0.05
