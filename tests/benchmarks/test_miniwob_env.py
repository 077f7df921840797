"""Live pages in a real Chromium: experts, verdicts, foresight, determinism, bad actions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2v_core.benchmarks.base import Outcome, Task
from r2v_core.benchmarks.miniwob.benchmark import TEMPLATES, pages_folder
from r2v_core.benchmarks.miniwob.env import MiniWobEnv
from r2v_core.benchmarks.web.accessibility import SHOWN
from r2v_core.benchmarks.web.chromium import browser

PAGES = [page for _, pages in TEMPLATES.values() for page in pages]
ODD = [
    "noop()", "fill('4', 'zzz')", "press('4', 'Enter')", "press('6', 'Tab')", "hover('5')", "clear('4')",
    "dblclick('5')", "focus('4')", "click('999')", "click('1')", "click('2')", "select_option('3', 'nobody')", "hello",
]  # fmt: skip


def task(page: str, seed: int) -> Task:
    return Task(
        task_id=f"{page}-{seed}", template_id=page, benchmark="miniwob", family="f", goal="", split="train",
        max_steps=10, content="", options={"page": page, "seed": seed},
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_browser() -> Iterator[None]:
    with browser():
        yield


@pytest.fixture
def opened() -> Iterator[Any]:
    environments: list[MiniWobEnv] = []

    def open_one(page: str, seed: int = 1) -> MiniWobEnv:
        environments.append(MiniWobEnv(task(page, seed), pages_folder()))
        return environments[-1]

    yield open_one
    for environment in environments:
        environment.close()
        environment.close()


def finish(environment: MiniWobEnv, outcome: Outcome) -> Outcome:
    """Let the expert play to the end, checking what it promises at each step."""
    for _ in range(10):
        if outcome.done:
            break
        action = environment.expert_action()
        assert action is not None and action in environment.admissible() and environment.would_progress(action) is True
        assert action.split("'")[1] in SHOWN.findall(outcome.observation.state), (action, outcome.observation.state)
        left, outcome = outcome.remaining, environment.step(action)
        assert outcome.progress is True and outcome.remaining is not None and left is not None
        assert outcome.remaining < left
    assert outcome.done and outcome.success and outcome.score == 1.0 and outcome.remaining == 0
    return outcome


@pytest.mark.parametrize("page", PAGES)
def test_expert_wins_from_the_start_and_from_anywhere(page: str, opened: Any) -> None:
    environment = opened(page)
    for seed in (1, 2):
        environment.task.options["seed"] = seed
        outcome = environment.reset()
        assert (outcome.done, outcome.progress) == (False, None) and outcome.remaining
        assert environment.goal and outcome.observation.state
        outcome = finish(environment, outcome)
        assert outcome.observation.feedback == "The page accepts the result."
        assert environment.expert_action() is None and environment.admissible() == []
        after = environment.step("click('3')")
        assert (
            after.done
            and after.success
            and after.progress is False
            and environment.would_progress("click('3')") is False
        )
    for walk in (1, 2):  # from where some odd and random actions lead
        environment.task.options["seed"] = walk + 10
        dice, outcome = random.Random(walk), environment.reset()
        for _ in range(4):
            action = dice.choice([dice.choice(environment.admissible()), dice.choice(ODD), dice.choice(ODD)])
            foreseen = environment.would_progress(action)
            outcome = environment.step(action)
            assert foreseen is outcome.progress, (action, outcome)
            if outcome.done:
                break
        if not outcome.done:
            finish(environment, outcome)


@pytest.mark.parametrize(("page", "wrong"), [("click-test-2", "TWO"), ("click-option", "Submit")])
def test_wrong_results_are_rejected_by_the_page(page: str, wrong: str, opened: Any) -> None:
    environment = opened(page)
    [line] = [line for line in environment.reset().observation.state.splitlines() if wrong in line]
    outcome = environment.step(f"click({line.split(']')[0].strip(' [')})")
    assert outcome.done and not outcome.success and outcome.remaining is None and outcome.progress is False
    assert outcome.observation.feedback == "The page rejects the result." and environment.expert_action() is None
    assert not environment.reset().done


def test_partial_reward_is_a_score_and_no_success(opened: Any) -> None:
    environment = opened("click-checkboxes", 4)
    environment.reset()
    while len(environment._plan) > 1 and environment._plan[1:] and len(environment._plan[0]) > 1:
        environment.step(environment.expert_action())
    boxes = sum("checkbox" in line for line in environment._last.observation.state.splitlines())
    outcome = environment.step(f"click({SHOWN.findall(environment._last.observation.state)[-1]})")
    assert outcome.done and not outcome.success and outcome.score == pytest.approx((boxes - 2) / boxes)


def test_same_seed_same_page_same_answers(opened: Any) -> None:
    for page in ("click-tab-2", "search-engine", "use-autocomplete-nodelay"):
        first, second = opened(page, 3), opened(page, 3)

        def walk(environment: MiniWobEnv) -> list[Outcome]:
            dice, outcomes = random.Random(5), [environment.reset()]
            for _ in range(5):
                choices = [dice.choice(environment.admissible() or ["noop()"]), environment.expert_action() or "noop()"]
                outcomes.append(environment.step(dice.choice(choices)))
            return outcomes

        played = walk(first)
        assert played == walk(second) == walk(first)
        assert first.goal == second.goal
        second.task.options["seed"] = 4
        assert walk(second) != played


def test_time_does_not_matter(opened: Any) -> None:
    environment = opened("enter-text")
    outcome = environment.reset()
    for _ in range(10):  # 20 s of the page's time, where MiniWoB++ allows 10
        outcome = environment.step("noop()")
    assert not outcome.done
    finish(environment, outcome)


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("click('999')", "There is no element 999."),
        ("click('-')", "There is no element -."),
        ("click('\"]')", 'There is no element "].'),
        ("fill('5', 'x')", "Element 5 can't be filled in."),
        ("fill('999', 'x')", "There is no element 999."),
        ("select_option('4', 'x')", "Element 4 is no list."),
        ("press('4', 'Hyper')", "Unknown key 'Hyper'; known: Enter, Tab"),
        ("drag('4', '5')", "Unknown action 'drag'; known: click"),
        ("Submit", "Write one action"),
        ("", "Write one action"),
    ],
)
def test_bad_actions_are_answered(action: str, answer: str, opened: Any) -> None:
    environment = opened("enter-text")
    before = environment.reset()
    foreseen = environment.would_progress(action)
    outcome = environment.step(action)
    assert outcome.observation.feedback.startswith(answer)
    assert outcome.observation.state == before.observation.state
    assert (outcome.done, outcome.progress) == (False, False) and foreseen is False


@pytest.fixture(scope="module")
def form(one_browser: None) -> Iterator[MiniWobEnv]:
    environment = MiniWobEnv(task("login-user", 1), pages_folder())
    environment.reset()
    yield environment
    environment.close()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.text(max_size=80)
    | st.builds(lambda name, text: f"{name}('6', {text!r})", st.sampled_from(["fill", "press"]), st.text(max_size=40))
    | st.sampled_from(["fill('6', '\ud800')", "fill('6', '</script>')", "fill('6', '${1}`')", "fill('6', '\\u2028\0')"])
)
def test_no_text_raises(form: MiniWobEnv, action: str) -> None:
    foreseen = form.would_progress(action)
    outcome = form.step(action)
    assert foreseen is outcome.progress and outcome.observation.state
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome
    if outcome.done:
        form.reset()


def test_what_was_typed_is_there(opened: Any) -> None:
    environment = opened("enter-text")
    environment.reset()
    assert 'textbox value="it\'s"' in environment.step("fill('4', 'it\\'s')").observation.state
    assert "value='abc'" in environment.step("fill('4', 'abc')").observation.state  # in place of what was there
    assert "value='abcd'" in environment.step("press('4', 'd')").observation.state
    assert "value='abc'" in environment.step("press('4', 'Backspace')").observation.state
    assert "value" not in environment.step("clear('4')").observation.state


def test_use_before_reset_and_after_close(opened: Any) -> None:
    environment = opened("click-test")
    with pytest.raises(RuntimeError, match="reset"):
        environment.step("noop()")
    environment.close()
    with pytest.raises(RuntimeError, match="closed"):
        environment.reset()
