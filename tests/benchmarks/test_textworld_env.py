"""Live games: what a step does, what would_progress foresees, what closing releases."""

from __future__ import annotations

import gc
import os
import random
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2v_core.benchmarks.base import Benchmark, Environment, Outcome, Task

FAMILIES = ("treasure_hunter", "coin_collector", "custom", "cooking", "simple")
ODD = (
    "open fridge", "go north", "north", "take all", "take coin", "eat meal", "drop coin", "put on", "take", "", "xyzzy",
    "undo", "restart", "take key from chest", "look. undo", "n, go south", "take it", "cook apple with stove", "wait",
    "go east and take coin", "examine me", "close door", "open door", "😀", "prepare meal", "insert key into chest",
)  # fmt: skip


def play(environment: Environment, seed: int, steps: int) -> list[Outcome]:
    """A walk of random admissible, odd and expert actions."""
    dice = random.Random(seed)
    outcomes = [environment.reset()]
    for _ in range(steps):
        choices = [dice.choice(environment.admissible() or ["look"]), dice.choice(ODD), environment.expert_action()]
        outcomes.append(environment.step(choices[dice.choice((0, 0, 1, 2, 2))] or "look"))
    return outcomes


@pytest.fixture(params=FAMILIES)
def environment(request: pytest.FixtureRequest, benchmark: Benchmark, by_family: dict[str, Task], cache: Path):  # type: ignore[no-untyped-def]
    opened = benchmark.open(by_family[request.param], cache)
    yield opened
    opened.close()


def test_peek_tells_what_step_would_report(environment: Environment) -> None:
    for walk in range(4):
        dice = random.Random(walk)
        outcome, route = environment.reset(), []
        for _ in range(6 + 2 * walk):
            if outcome.done:
                break
            if outcome.remaining and dice.random() < 0.5:
                action = environment.expert_action() or "look"
            else:
                action = dice.choice([*environment.admissible(), *ODD])
            outcome = environment.step(action)
            route.append(action)
        foreseen = {action: environment.would_progress(action) for action in [*environment.admissible(), *ODD]}
        state, feedback = environment.admissible(), outcome
        for action in dice.sample(sorted(foreseen), min(12, len(foreseen))):
            environment.reset()
            for past in route:
                before = environment.step(past)
            assert environment.admissible() == state
            assert not route or before == feedback  # peeking disturbed nothing
            assert environment.step(action).progress is foreseen[action], (route, action)


def test_expert_wins_from_the_start(environment: Environment) -> None:
    outcome = environment.reset()
    assert (outcome.done, outcome.success, outcome.progress) == (False, False, None)
    assert outcome.remaining == environment.task.options["plan_length"]
    for left in range(outcome.remaining or 0, 0, -1):
        action = environment.expert_action()
        assert action in environment.admissible() and environment.would_progress(str(action)) is True
        outcome = environment.step(str(action))
        assert outcome.progress is True and outcome.remaining is not None and outcome.remaining < left + 1
    assert outcome.done and outcome.success and outcome.score == 1.0 and outcome.remaining == 0
    assert outcome.observation.feedback.endswith("You won!")
    after = environment.step("look")
    assert after.done and after.success and not after.progress
    assert (
        environment.expert_action() is None
        and environment.admissible() == []
        and environment.would_progress("look") is False
    )
    assert not environment.reset().done


def test_same_actions_same_outcomes(benchmark: Benchmark, by_family: dict[str, Task], cache: Path) -> None:
    for family in FAMILIES:
        first, second = (benchmark.open(by_family[family], cache) for _ in range(2))
        played = play(first, 7, 30)
        assert played == play(second, 7, 30) == play(first, 7, 30)
        first.close()
        second.close()


def test_observations_are_short_and_clean(environment: Environment) -> None:
    for outcome in play(environment, 3, 25):
        text = outcome.observation.text
        assert "\n\n" not in text and "-=" not in text and "***" not in text and ">" not in text and "$$" not in text
        assert "You are carrying" in outcome.observation.state
        assert len(outcome.observation.state) < 1200 and len(outcome.observation.feedback) < 600


def test_wrong_treasure_loses(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    task = next(task for task in tasks if task.family == "treasure_hunter")
    environment = benchmark.open(task, cache)
    outcome, seen = environment.reset(), random.Random(0)
    goal = (environment.expert_action(), environment.task.goal)
    for _ in range(3000):
        takes = [
            a for a in environment.admissible() if a.startswith("take") and a.split(" from ")[0][5:] not in goal[1]
        ]
        outcome = environment.step(seen.choice(takes or environment.admissible()))
        if outcome.success:
            outcome = environment.reset()
        elif outcome.done:
            break
    assert outcome.done and not outcome.success and outcome.remaining is None and outcome.progress is False
    assert environment.expert_action() is None
    environment.close()


def test_score_rises_with_the_quests(environment: Environment) -> None:
    environment.reset()
    scores = []
    while (action := environment.expert_action()) is not None:
        scores.append(environment.step(action).score)
    assert scores == sorted(scores) and scores[-1] == 1.0 and all(0.0 <= score <= 1.0 for score in scores)


@pytest.fixture(scope="module")
def kitchen(benchmark: Benchmark, by_family: dict[str, Task], cache: Path):  # type: ignore[no-untyped-def]
    opened = benchmark.open(by_family["cooking"], cache)
    opened.reset()
    yield opened
    opened.close()


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.one_of(
        st.text(max_size=300),
        st.sampled_from(
            ["a" * 5000, "take " + "x" * 500, "go\nnorth", "take\x00", "put \ud800", "\r\n", "take '\"%s{}"]
        ),
        st.builds(
            lambda verb, rest: f"{verb} {rest}",
            st.sampled_from(["take", "open", "go", "x", "put"]),
            st.text(max_size=150),
        ),
    )
)
def test_no_text_raises(kitchen: Environment, action: str) -> None:
    foreseen = kitchen.would_progress(action)
    outcome = kitchen.step(action)
    assert outcome.progress is foreseen and outcome.observation.state
    if outcome.done:
        kitchen.reset()


def test_use_before_reset_and_after_close(benchmark: Benchmark, by_family: dict[str, Task], cache: Path) -> None:
    environment = benchmark.open(by_family["custom"], cache)
    with pytest.raises(RuntimeError, match="reset"):
        environment.step("look")
    environment.close()
    environment.close()
    with pytest.raises(RuntimeError, match="closed"):
        environment.reset()


def used() -> tuple[int, int, float]:
    """Open file descriptors, mapped libraries of the interpreter, resident memory in MiB."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        maps.count("libfrotz"),
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


def test_many_environments_side_by_side_and_nothing_left_of_them(
    benchmark: Benchmark, tasks: list[Task], cache: Path
) -> None:
    def round_of_play() -> None:
        with ExitStack() as stack:
            opened = [stack.enter_context(closing(benchmark.open(task, cache))) for task in (tasks * 3)[:28]]
            outcomes = [one.reset() for one in opened]
            assert len(outcomes) == 28
            for _ in range(2):
                for one in opened:
                    one.would_progress("look")
                outcomes = [one.step(one.expert_action() or "look") for one in opened]
            assert all(outcome.progress for outcome in outcomes)

    round_of_play()
    files, libraries, _ = used()
    round_of_play()
    memory = used()[2]
    for _ in range(3):
        round_of_play()
    after = used()
    assert after[0] <= files and after[1] <= libraries
    assert after[2] - memory < 40  # MiB after 84 more environments


def test_repeated_resets_do_not_grow(benchmark: Benchmark, by_family: dict[str, Task], cache: Path) -> None:
    environment = benchmark.open(by_family["simple"], cache)
    for _ in range(10):
        environment.reset()
    before = used()
    for _ in range(25):
        environment.reset()
        for action in environment.admissible():
            environment.would_progress(action)
    after = used()
    environment.close()
    assert after[0] == before[0] and after[2] - before[2] < 15
