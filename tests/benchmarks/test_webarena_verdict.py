"""What decides a task: answers, addresses and pages, against a table of cases; and the helpers that ask a shop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from r2v_core.benchmarks.webarena.format import Evaluation
from r2v_core.benchmarks.webarena.helpers import call_helper
from r2v_core.benchmarks.webarena.judge import AnswerJudge
from r2v_core.benchmarks.webarena.sites import Sites
from r2v_core.benchmarks.webarena.verdict import answered, arrived, decide
from r2v_core.errors import R2VError
from tests.benchmarks.webshop import Shop

SHOP = "http://shop:7770"


class Said:
    """A model that says what it is told to; keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.asked.append("\n".join(message["content"] for message in messages))
        return self.replies.pop(0)


def evaluation(**answers: Any) -> Evaluation:
    return Evaluation.model_validate(
        {"eval_types": ["string_match"], "reference_answers": answers, "string_note": "the page is gone"}
    )


ANSWERS: list[tuple[dict[str, Any], str, bool]] = [
    ({"exact_match": "Oak Desk"}, "oak desk", True),
    ({"exact_match": "Oak Desk"}, "  'Oak Desk' ", True),
    ({"exact_match": "Oak Desk"}, '"Oak Desk"', True),
    ({"exact_match": "Oak Desk"}, "The Oak Desk", False),
    ({"exact_match": "Oak Desk"}, "", False),
    ({"must_include": ["Oak", "Pine"]}, "pine and oak", True),
    ({"must_include": ["Oak", "Pine"]}, "pine only", False),
    ({"must_include": ["557m"]}, "It is 557m long", True),
    ({"must_include": ["5"]}, "15 of them", False),
    ({"must_include": ["5"]}, "There are 5.", True),
    ({"must_include": ["5"]}, "5", True),
    ({"must_include": ["5"]}, "(5), it seems", True),
    ({"must_include": ["5"]}, "about $5 each", True),
    ({"must_include": ["5"]}, "1.5 or 5:30", False),
    ({"must_include": ["5", "6"]}, "15 and 16", True),
    ({"must_include": ["0"]}, "There are no reviews", False),
    ({"exact_match": "a", "must_include": ["b"]}, "a", False),
    ({"fuzzy_match": "N/A"}, "n/a", True),
    ({"fuzzy_match": "N/A"}, "", False),
]


@pytest.mark.parametrize(("answers", "said", "right"), ANSWERS)
def test_answers(answers: dict[str, Any], said: str, right: bool) -> None:
    assert answered(evaluation(**answers), "How many?", said, None) is right


@pytest.mark.parametrize(
    ("replies", "right"),
    [
        (["SAME"], True),
        (["I'd say: same."], True),
        (["PARTLY"], False),
        (["DIFFERENT"], False),
        (["hm", "Same"], True),
        (["hm", "SAME or DIFFERENT"], False),
    ],
)
def test_a_model_judges_open_answers(replies: list[str], right: bool) -> None:
    model = Said(*replies)
    assert answered(evaluation(fuzzy_match=["It is far"]), "Is it far?", "2 km", AnswerJudge(model)) is right
    assert not model.replies
    assert all(words in model.asked[0] for words in ("Question: Is it far?", "Reference: It is far", "Answer: 2 km"))


def test_each_reference_is_asked_about_until_one_is_not_met() -> None:
    model = Said("SAME", "DIFFERENT")
    assert not answered(evaluation(fuzzy_match=["a", "b", "c"]), "?", "a, b", AnswerJudge(model))
    assert len(model.asked) == 2


def test_the_reason_why_a_task_can_not_be_done_counts_as_n_a() -> None:
    model = Said("SAME", "DIFFERENT")
    judge, task = AnswerJudge(model), evaluation(fuzzy_match="N/A")
    assert answered(task, "Find it", "there is no such page", judge)
    assert not answered(task, "Find it", "I am tired", judge)
    assert "Reason: the page is gone" in model.asked[0]
    with pytest.raises(R2VError, match=r"benchmark\.options\.judge"):
        answered(task, "Find it", "no", None)


@pytest.mark.parametrize(
    ("references", "address", "right"),
    [
        (f"{SHOP}/a.html", f"{SHOP}/a.html", True),
        (f"{SHOP}/a.html", f"{SHOP}/a.html/", True),
        (f"{SHOP}/a.html", f"{SHOP}/a.html?page=2#top", True),
        (f"{SHOP}/a", f"{SHOP}/a/b", True),
        (f"{SHOP}/a/b", f"{SHOP}/a", False),
        (f"{SHOP}/a", "http://other:7770/a", False),
        (f"{SHOP}/s?q=x&sort=p", f"{SHOP}/s?sort=p&q=x&n=1", True),
        (f"{SHOP}/s?q=x&sort=p", f"{SHOP}/s?q=x", False),
        (f"{SHOP}/s?q=x", f"{SHOP}/s?q=y", False),
        (f"{SHOP}/a |OR| {SHOP}/b", f"{SHOP}/b", True),
        (f"{SHOP}/a |OR| {SHOP}/b", f"{SHOP}/c", False),
        (f"{SHOP}/s?q=x |OR| {SHOP}/s?q=y", f"{SHOP}/s?q=y", True),
    ],
)
def test_addresses(references: str, address: str, right: bool) -> None:
    assert arrived(references, address) is right


class Pages:
    """A browser whose pages are texts by address; JavaScript finds what stands after the locator's last dot."""

    def __init__(self, **pages: str) -> None:
        self.pages = pages
        self.front = "start"
        self.ran: list[str] = []

    def address(self) -> str:
        return self.front

    def source(self) -> str:
        return self.pages[self.front]

    def value(self, script: str) -> str:
        self.ran.append(script)
        return self.pages[self.front] if script.startswith("document") else ""

    @contextmanager
    def aside(self, url: str) -> Iterator[bool]:
        self.front, before = url, self.front
        yield url in self.pages
        self.front = before

    def helper(self, call: str) -> str:
        return {"newest('start')": "order", "role(__page__)": "Owner"}[call]


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ({"url": "last", "locator": "", "required_contents": {"must_include": ["hello"]}}, True),
        ({"url": "last", "locator": "", "required_contents": {"must_include": ["hello", "you"]}}, False),
        ({"url": "last", "locator": "", "required_contents": {"must_include": ["you |OR| world"]}}, True),
        ({"url": "last", "locator": "document.x", "required_contents": {"exact_match": "<b>Hello World</b>"}}, True),
        ({"url": "last", "locator": "[...document.x]", "required_contents": {"exact_match": ""}}, True),
        ({"url": "order", "locator": "document.x", "required_contents": {"must_include": ["a & b"]}}, True),
        ({"url": "gone", "locator": "document.x", "required_contents": {"must_include": ["a"]}}, False),
        ({"url": "func:newest('__last_url__')", "locator": "", "required_contents": {"must_include": ["a &"]}}, True),
        ({"url": "last", "locator": "func:role(__page__)", "required_contents": {"exact_match": "owner"}}, True),
    ],
)
def test_pages(target: dict[str, Any], right: bool) -> None:
    pages = Pages(start="<b>Hello World</b>", order="a &amp; b")
    task = Evaluation.model_validate({"eval_types": ["program_html"], "program_html": [target]})
    assert decide(task, "", "", pages, None) is right
    assert pages.front == "start"


def test_pages_are_prepared_before_they_are_looked_at() -> None:
    target = {"url": "last", "locator": "document.x", "prep_actions": ["document.open()"],
              "required_contents": {"must_include": ["hello"]}}  # fmt: skip
    pages = Pages(start="hello")
    assert decide(
        Evaluation.model_validate({"eval_types": ["program_html"], "program_html": [target]}), "", "", pages, None
    )
    assert pages.ran == ["document.open()", "document.x"]


def test_all_kinds_have_to_agree() -> None:
    pages = Pages(start="hello")
    task = Evaluation.model_validate(
        {"eval_types": ["string_match", "url_match"], "reference_answers": {"exact_match": "a"}, "reference_url": "sta"}
    )
    assert decide(task, "", "a", pages, None) and not decide(task, "", "b", pages, None)
    task.reference_url = "end"
    assert not decide(task, "", "a", pages, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"eval_types": ["string_match"], "reference_answers": {"semantic_match": "x"}},
        {"eval_types": ["image_match"]},
        {"eval_types": []},
        {"eval_types": ["url_match"], "reference_url": "x", "url_note": "EXACT"},
        {"eval_types": ["program_html"],
         "program_html": [{"url": "last", "locator": "", "required_contents": {"regex": "x"}}]},
        {"eval_types": ["program_html"], "program_html": [{"url": "last", "locator": "", "required_contents": {}}]},
    ],
)  # fmt: skip
def test_ways_of_deciding_that_are_not_known_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Evaluation.model_validate(wrong)


# -- helpers


def nowhere(script: str) -> str:
    return ""


def test_the_shop_is_asked_for_orders_and_reviews(shop: Shop) -> None:
    sites = Sites({"shopping": shop.url})
    with pytest.raises(R2VError, match="lists no order, or not as"):
        call_helper("shopping_get_latest_order_url()", sites, nowhere)
    shop.orders += ["Oak Desk", "Wool Rug"]
    assert call_helper("shopping_get_latest_order_url()", sites, nowhere) == f"{shop.url}/sales/order/view/order_id/2/"
    assert call_helper("shopping_get_sku_latest_review_author('A/1')", sites, nowhere) == "bob"
    assert call_helper("shopping_get_sku_latest_review_rating('A/1')", sites, nowhere) == "80"


@pytest.mark.parametrize(
    ("url", "post"),
    [
        ("http://forum/f/books/7/a-title#comments", "http://forum/f/books/7/"),
        ("http://forum/f/books", "http://forum/f/books"),
        ("http://forum/user/ann/account", "http://forum/user/ann/account"),
    ],
)
def test_the_post_of_a_page(url: str, post: str) -> None:
    assert call_helper(f"reddit_get_post_url('{url}')", Sites({}), nowhere) == post


def test_what_helpers_can_not_do_is_said_in_one_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = Sites({"shopping": shop.url})
    for call, said in {
        "__import__('os').system('true')": "an unknown function; known: shopping_get_latest_order_url",
        "reddit_get_post_url()": "takes 1 text",
    }.items():
        with pytest.raises(R2VError, match=said):
            call_helper(call, sites, nowhere)
    with pytest.raises(R2VError, match="set WA_SHOPPING"):
        call_helper("shopping_get_latest_order_url()", Sites({}), nowhere)
    with pytest.raises(R2VError, match=r"127\.0\.0\.1:9/.* can't be reached"):
        call_helper("shopping_get_latest_order_url()", Sites({"shopping": "http://127.0.0.1:9"}), nowhere)
    monkeypatch.setenv("WA_SHOPPING_ADMIN_PASSWORD", "guessed")
    with pytest.raises(R2VError, match=r"refuses: status 401; set WA_SHOPPING_ADMIN_USER") as caught:
        call_helper("shopping_get_latest_order_url()", sites, nowhere)
    assert "guessed" not in str(caught.value)
