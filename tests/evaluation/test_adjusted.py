"""Rates of worlds that met different tasks: against regression on dummy variables, and under chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.made_up import tally_of
from r2v_core.benchmarks.base import Task
from r2v_core.errors import R2VError
from r2v_core.evaluation.adjusted import incomplete, world_rates
from r2v_core.evaluation.metrics import cvar_failure, cvar_failure_null, seed_rates
from r2v_core.stages.design import worlds_met


def tasks_of(*sizes: int, goals: int = 1) -> list[Task]:
    """Families of so many templates, each with so many tasks."""
    return [
        Task(
            task_id=f"f{f}t{i}g{g}", template_id=f"f{f}t{i}", family=f"f{f}", goal="g", split="test", max_steps=9,
            content=f"{f}{i}{g}", benchmark="b",
        )
        for f, size in enumerate(sizes) for i in range(size) for g in range(goals)
    ]  # fmt: skip


def dealt(n: int, worlds: int, hand: int, seed: int = 1) -> np.ndarray:
    """Which of the worlds each of n tasks meets, shape (n, worlds), 0 or 1."""
    met = worlds_met(tasks_of(n), range(worlds), hand, seed)
    return np.array([[float(z in met[f"f0t{i}"]) for z in range(worlds)] for i in range(n)])


def test_where_all_meet_all_rates_are_plain() -> None:
    random = np.random.default_rng(0)
    success, weights = random.integers(0, 2, (6, 4)).astype(float), random.integers(0, 3, (5, 6)).astype(float)
    assert not incomplete(np.ones((6, 4)))
    assert world_rates(success, np.ones((6, 4)), weights) == pytest.approx(
        weights @ success / weights.sum(axis=1)[:, None]
    )


def test_rates_are_those_of_least_squares_with_a_dummy_for_each_task_and_world() -> None:
    random = np.random.default_rng(1)
    n, worlds = 12, 6
    met = dealt(n, worlds, 3)
    success = met * (0.4 + 0.02 * random.normal(size=(n, worlds)))
    weights = random.integers(1, 4, (3, n)).astype(float)
    found = world_rates(success, met, weights)
    at = np.argwhere(met > 0)
    design = np.zeros((len(at), n + worlds))
    design[np.arange(len(at)), at[:, 0]] = design[np.arange(len(at)), n + at[:, 1]] = 1.0
    for row, weight in zip(found, weights, strict=True):
        root = np.sqrt(weight[at[:, 0]])
        fitted = np.linalg.lstsq(design * root[:, None], success[tuple(at.T)] * root, rcond=None)[0]
        level = np.average(fitted[:n], weights=weight * met.sum(axis=1))
        assert row == pytest.approx(level + fitted[n:], abs=1e-9)


def test_hard_tasks_do_not_make_a_world_bad() -> None:
    """Tasks differ, worlds do not: plain rates are spread out, adjusted ones are not."""
    random = np.random.default_rng(2)
    met = dealt(40, 10, 3)
    hard = np.tile(np.where(random.random((40, 1)) < 0.4, 0.2, 0.9), 10)
    success = met * hard
    plain, adjusted = success.sum(axis=0) / met.sum(axis=0), world_rates(success, met, np.ones((1, 40)))[0]
    assert np.ptp(plain) > 0.1 and np.ptp(adjusted) < 1e-9
    assert adjusted.mean() == pytest.approx(success.sum() / met.sum())


def test_a_world_that_no_weighted_task_met_has_no_rate() -> None:
    met = np.array([[1.0, 1, 0], [1, 0, 1], [0, 1, 1]])
    found = world_rates(met, met, np.array([[1.0, 0, 0]]))[0]
    assert np.isnan(found[2]) and found[:2] == pytest.approx(1.0)


def test_chance_alone_gives_the_null_of_an_incomplete_design() -> None:
    random = np.random.default_rng(3)
    met, gaps = dealt(60, 20, 3), {0.0: [], 0.25: []}
    for shared, seen in gaps.items():
        for _ in range(30):
            world = shared * random.choice([-1.0, 1.0], (1, 20))
            success = met * (random.random(met.shape) >= random.beta(0.6, 1.8, (60, 1)) + world)
            found = replace(tally_of(success, 0), episodes=met)
            tail = float(cvar_failure(seed_rates(found, np.ones((1, 60)))[0], 0.2))
            seen.append(tail - cvar_failure_null(found, 0.2, random, repeats=60))
    error = np.std(gaps[0.0]) / np.sqrt(30)
    assert abs(np.mean(gaps[0.0])) < 4 * error < 0.04 and np.mean(gaps[0.25]) > 0.1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 7), st.integers(0, 3), st.data())
def test_worlds_are_dealt_evenly(sizes: list[int], worlds: int, seed: int, data: st.DataObject) -> None:
    hand = data.draw(st.integers(1, worlds))
    tasks = tasks_of(*sizes, goals=2)
    zs = range(100, 100 + worlds)
    met = worlds_met(tasks, zs, hand, seed)
    assert met == worlds_met(tasks[::-1], zs, hand, seed) and set(met) == {task.template_id for task in tasks}
    assert all(len(its) == hand and its <= set(zs) for its in met.values())
    for f, _ in enumerate(sizes):
        times = [sum(z in its for name, its in met.items() if name.startswith(f"f{f}t")) for z in zs]
        assert max(times) - min(times) <= 1
    assert all(its == set(zs) for its in worlds_met(tasks, zs, 0, seed).values())


def test_more_worlds_a_template_than_there_are() -> None:
    with pytest.raises(R2VError, match=r"evaluation.worlds_per_template is 4, but perturbations.seeds.test gives 3"):
        worlds_met(tasks_of(2), range(3), 4, 1)
