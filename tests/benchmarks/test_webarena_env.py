"""WebArena tasks in a real Chromium against a small shop on this machine; nothing of the published sites is here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from r2v_core.benchmarks.base import Outcome, Task
from r2v_core.benchmarks.web.accessibility import SHOWN
from r2v_core.benchmarks.web.chromium import browser
from r2v_core.benchmarks.webarena.benchmark import WebArena, WebArenaOptions
from r2v_core.benchmarks.webarena.env import WebArenaEnv
from r2v_core.benchmarks.webarena.format import read_file
from r2v_core.errors import R2VError
from tests.benchmarks import webshop

TASKS = {config.task_id: config for config in read_file(webshop.TASKS)}


class Fair:
    """A judge who knows the shop."""

    def same(self, question: str, reference: str, answer: str) -> bool:
        return "like" in answer

    def same_reason(self, question: str, reference: str, answer: str) -> bool:
        return "no phone" in answer


@pytest.fixture(scope="module", autouse=True)
def one_browser(shop: webshop.Shop) -> Iterator[None]:
    with browser(frozenset(["127.0.0.1"])):
        yield


@pytest.fixture
def opened(shop: webshop.Shop) -> Iterator[Any]:
    environments: list[WebArenaEnv] = []

    def open_one(number: int, whole: bool = False, **changes: Any) -> WebArenaEnv:
        task: Task = WebArena(WebArenaOptions(), {}, 12)._task(TASKS[number], "test")
        task.options.update(changes)
        environments.append(WebArenaEnv(task, WebArenaOptions(quiet_s=0.05, patience_s=10, whole_page=whole), Fair))
        return environments[-1]

    yield open_one
    for environment in environments:
        environment.close()


def finish(environment: WebArenaEnv, outcome: Outcome) -> Outcome:
    """Let the player who knows the shop play to the end."""
    for _ in range(12):
        action = webshop.play(environment.task.goal, outcome.observation.state)
        foreseen = environment.would_progress(action)
        outcome = environment.step(action)
        assert outcome.progress is foreseen, (action, outcome.observation)
        if outcome.done:
            return outcome
    raise AssertionError(outcome.observation.state)


def bid(outcome: Outcome, role: str, name: str) -> str:
    found = re.search(rf"\[(\d+)\] {role} '{re.escape(name)}'", outcome.observation.state)
    assert found, outcome.observation.state
    return found[1]


@pytest.mark.parametrize("number", [number for number in TASKS if number not in (1, 3, 5, 9)])
def test_tasks_can_be_done_and_are_not_at_the_start(number: int, opened: Any, shop: webshop.Shop) -> None:
    shop.orders.append("Pine Shelf")
    environment = opened(number)
    assert environment.reset().progress is None and environment.would_progress("stop('I do not know')") is False
    outcome = finish(environment, environment._last)
    assert (outcome.success, outcome.score, outcome.remaining, outcome.progress) == (True, 1.0, 0, True)
    assert environment.expert_action() is None and environment.admissible() == [] == environment.hard_negatives()
    again = environment.step("stop('no')")
    assert again.done and again.success and again.observation.feedback == "The episode is over."


@pytest.mark.parametrize("number", [0, 4, 7])
def test_stopping_at_once_is_a_failure(number: int, opened: Any) -> None:
    environment = opened(number)
    environment.reset()
    outcome = environment.step("stop('I do not know')")
    assert (outcome.done, outcome.success, outcome.score, outcome.progress) == (True, False, 0.0, False)
    assert outcome.remaining is None and not environment.reset().done


def test_open_answers_are_judged(opened: Any) -> None:
    environment = opened(9)
    environment.reset()
    assert environment.would_progress("stop('they hate it')") is False
    assert environment.step("stop('most like it')").success
    environment = opened(10)
    environment.reset()
    assert environment.step("stop('there is no phone number anywhere')").success


def test_a_reset_starts_with_fresh_cookies_and_nothing_else_is_undone(opened: Any, shop: webshop.Shop) -> None:
    environment = opened(7, whole=True)
    first = environment.reset()
    assert "Welcome, shopper" in first.observation.state  # as the task asks for it
    assert finish(environment, first).success
    assert "2 stars: it wobbles" in environment._last.observation.state
    assert environment.reset() == first
    environment = opened(8)
    assert finish(environment, environment.reset()).success
    environment.reset()
    assert shop.orders[-1] == "Desk Organizer"  # an order is an order


def test_what_an_agent_sees_does_not_depend_on_where_the_site_runs(opened: Any, shop: webshop.Shop) -> None:
    environment = opened(12)
    state = environment.reset().observation.state
    assert state.splitlines()[:2] == [
        "text 'Tab 0: __SHOPPING__/product/oak-desk.html'",
        "text 'Tab 1 (in front): __SHOPPING__/product/reading-chair.html'",
    ]
    assert "13 in stock" in state and shop.url not in state and "127.0.0.1" not in state


def test_only_what_is_in_the_window_is_shown(opened: Any) -> None:
    environment = opened(5)
    environment.reset()
    outcome = environment.step("goto('__SHOPPING__/product/oak-desk.html')")
    assert "Reviews" not in outcome.observation.state
    assert outcome.observation.state.endswith("text 'The page goes on below.'")
    for _ in range(3):
        outcome = environment.step("scroll('down')")
    assert "heading 'Reviews'" in outcome.observation.state and "'Oak Desk'" not in outcome.observation.state
    assert "text 'The page goes on above.'" in outcome.observation.state
    assert "'Oak Desk'" in environment.step("scroll('up')").observation.state or environment.step("scroll('up')")
    whole = opened(5, whole=True)
    whole.reset()
    assert "heading 'Reviews'" in whole.step("goto('__SHOPPING__/product/oak-desk.html')").observation.state


def front(outcome: Outcome) -> str:
    found = re.search(r"Tab (\d \(in front\): .*)'", outcome.observation.state)
    assert found
    return found[1].replace(" (in front)", "").replace("__SHOPPING__", "")


def test_tabs_and_history(opened: Any) -> None:
    environment = opened(4)
    outcome = environment.reset()
    assert front(outcome) == "0: /"
    outcome = environment.step(f"click('{bid(outcome, 'link', 'rug')}')")
    outcome = environment.step(f"click('{bid(outcome, 'link', 'Wool Rug')}')")
    assert front(outcome) == "0: /product/wool-rug.html"
    assert front(environment.step("go_back()")) == "0: /search?q=rug"
    assert front(environment.step("go_forward()")) == "0: /product/wool-rug.html"
    assert environment.step("go_forward()").observation.feedback == "There is no such page."
    outcome = environment.step(f"click('{bid(outcome, 'link', 'Sizes')}')")  # opens a tab of its own
    assert front(outcome) == "1: /sizes/wool-rug" and "heading 'Sizes of the Wool Rug'" in outcome.observation.state
    outcome = environment.step(f"click('{bid(outcome, 'button', 'Close')}')")  # closes itself
    assert front(outcome) == "0: /product/wool-rug.html"
    outcome = environment.step("new_tab()")
    assert front(outcome) == "1: about:blank" and "This page shows nothing." in outcome.observation.state
    assert front(environment.step("goto('__SHOPPING__/search?q=desk')")) == "1: /search?q=desk"
    assert front(environment.step("tab_focus('0')")) == "0: /product/wool-rug.html"
    assert environment.step("tab_focus('2')").observation.feedback == "There is no tab 2."
    outcome = environment.step("tab_close()")
    assert front(outcome) == "0: /search?q=desk" and "Tab 1" not in outcome.observation.state
    assert front(environment.step("tab_close()")) == "0: about:blank"  # the last one stays
    assert front(environment.step("goto('__SHOPPING__')")) == "0: /"
    assert SHOWN.search(environment._last.observation.state)


@pytest.mark.parametrize(
    ("action", "answer", "progress"),
    [
        ("click('999')", "There is no element 999.", False),
        ("fill('1')", "The arguments of 'fill' are wrong", False),
        ("drag('4', '5')", "Unknown action 'drag'; known: click", False),
        ("", "Write one action", False),
        ("scroll('left')", "Scroll 'up' or 'down'.", False),
        ("goto('https://example.org/')", "Only addresses on these sites can be opened: __SHOPPING__, ", False),
        ("goto('file:///etc/passwd')", "Only addresses on these sites", False),
        ("goto('http://127.0.0.1:9/')", "Only addresses on these sites", False),
        ("goto('__SHOPPING__/empty')", "That address can't be opened (net::ERR_ABORTED).", None),
        ("go_back()", "", None),
        ("noop()", "", None),
    ],
)
def test_odd_actions_are_answered(action: str, answer: str, progress: bool | None, opened: Any) -> None:
    environment = opened(4)
    environment.reset()
    assert environment.would_progress(action) is progress
    outcome = environment.step(action)
    assert outcome.observation.feedback.startswith(answer)
    assert (outcome.done, outcome.progress) == (False, progress)


def test_pages_reach_nothing_but_the_sites(opened: Any, shop: webshop.Shop) -> None:
    environment = opened(4)
    before = environment.reset()
    page = environment._tabs.front
    port = shop.url.rpartition(":")[2]
    assert (
        page.run(f"fetch('http://localhost:{port}/', {{mode: 'no-cors'}}).then(() => 'reached', () => 'refused')")
        == "refused"
    )
    page.run("document.querySelector('header a').href = 'http://127.0.0.1:9/'")  # another server beside the site
    outcome = environment.step(f"click('{bid(before, 'link', 'Corner Shop')}')")
    assert outcome.observation.feedback == "That leads away from the sites; the page before is shown again."
    assert front(outcome) == "0: /" and "link 'rug'" in outcome.observation.state


def test_a_site_that_does_not_let_the_user_in_is_named(
    opened: Any, shop: webshop.Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_SHOPPING_PASSWORD", "hunter-7")
    with pytest.raises(R2VError, match=r"does not let 'shopper@shop\.test' in: set WA_SHOPPING_USER and") as caught:
        opened(7).reset()
    assert "hunter-7" not in str(caught.value)
    monkeypatch.delenv("WA_SHOPPING_PASSWORD")
    with pytest.raises(R2VError, match="set WA_SHOPPING_PASSWORD to the account that tasks log in with"):
        opened(7).reset()
    monkeypatch.setenv("WA_SHOPPING_PASSWORD", webshop.PASSWORD)
    monkeypatch.setenv("WA_SHOPPING", f"{shop.url}/members")
    with pytest.raises(R2VError, match="has no login form; see that WA_SHOPPING is the address of the site 'shopping'"):
        opened(7).reset()


def test_pages_are_looked_at_without_disturbing_the_one_in_front(opened: Any, shop: webshop.Shop) -> None:
    locator = "func:gitlab_get_project_memeber_role(__page__, 'bob')"
    look = {"url": "__SHOPPING__/members", "locator": locator, "required_contents": {"exact_match": "Guest"}}
    source = {"url": "last", "locator": "", "required_contents": {"must_include": ["<h1>Corner Shop</h1>"]}}
    gone = {"url": "http://127.0.0.1:9/", "locator": "", "required_contents": {"must_include": [""]}}
    broken = {"url": "last", "locator": "document.nothing.there", "required_contents": {"exact_match": ""}}
    for targets, right in (([look, source, broken], True), ([look, gone], False)):
        environment = opened(4, eval={"eval_types": ["program_html"], "program_html": targets})
        before = environment.reset()
        assert environment.would_progress("stop('')") is right
        assert environment.step("noop()").observation == before.observation
        assert environment.step("stop('')").success is right


def test_what_can_not_be_decided_says_so(opened: Any) -> None:
    target = {"url": "func:wikipedia_get_page('x')", "locator": "", "required_contents": {"must_include": ["x"]}}
    environment = opened(4, eval={"eval_types": ["program_html"], "program_html": [target]})
    environment.reset()
    with pytest.raises(R2VError, match=r"Task webarena-4 can't be decided: the task calls 'wikipedia_get_page"):
        environment.step("stop('')")


@pytest.mark.parametrize("start", ["0", "https://example.org", "__WIKIPEDIA"])
def test_tasks_start_on_their_sites(start: str, opened: Any) -> None:
    with pytest.raises(R2VError, match=r"Task webarena-4 starts at '.*', which is on none of its sites"):
        opened(4, start_url=start)
