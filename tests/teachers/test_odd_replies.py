"""Replies that were paid for and are not what a protocol promises: read or said to be none, and booked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.teachers import replies, transport
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.budget import read_usage
from r2v_core.teachers.delays import delay_in
from tests.teachers.conftest import CANARY, QUICK, situation
from tests.teachers.server import Behaviour, Handler, Server, drips, endless, fails, odd, raw, says

Make = Callable[..., Teacher]
BOTH = pytest.mark.parametrize("name", ["paid", "claude"])


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, CANARY)


@BOTH
@pytest.mark.parametrize(
    ("content", "action"),
    [
        ('"open door"', "open door"),
        ('[{"type": "text", "text": "open "}, {"type": "text", "text": "door"}]', "open door"),
        ('[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "open door"}]', "open door"),
        ('[{"type": "image", "url": 3}, 7, "open door", null]', "open door"),
        ('{"type": "text", "text": "open door"}', "open door"),
        (r'"open\ud800 door"', "open\ufffd door"),
        (r'[{"type": "text", "text": "open \ud83d\ude00\udc00"}]', "open \U0001f600\ufffd"),
    ],
)
def test_content_that_can_be_read_is_read(
    project: Path, server: Server, teacher: Make, name: str, content: str, action: str
) -> None:
    server.script.append(odd(content))
    for _ in range(2):  # the second time from the cache
        (advice,) = teacher(name).act([situation()])
        assert (advice.action, advice.detail, advice.tokens_in, advice.tokens_out) == (action, {}, 100, 10)
    usage = read_usage(project / "run")
    assert (len(server.requests), usage.calls, usage.cached) == (1, 1, 1) and usage.spent_usd > 0


@BOTH
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("42", "content is 42, not text"),
        ("true", "content is True, not text"),
        ('{"action": "open door"}', "no part with text"),
        ('[{"type": "tool_use", "input": {}}]', "no part with text"),
        ("[[]]", "no part with text"),
    ],
)
def test_content_that_can_not_be_read_is_booked_said_and_asked_about_once(
    project: Path, server: Server, teacher: Make, name: str, content: str, told: str
) -> None:
    said: list[str] = []
    server.script.extend([odd(content), says("look")])
    (advice,) = teacher(name, log=said.append).act([situation()])
    assert advice.action == "look" and advice.detail == {"asked_again": "the reply is empty"}
    assert len(said) == 1 and told in said[0] and "\n" not in said[0] and len(server.requests) == 2
    assert read_usage(project / "run").calls == 2 and read_usage(project / "run").tokens_in == 200


@BOTH
@pytest.mark.parametrize(
    "wrong", ["-8000000", "8e30", '"many"', "null", "true", "[1]", "1.5", "NaN", "1e999", "9" * 5000, '"-3"', '"³"']
)
@pytest.mark.parametrize("place", ["prompt_tokens", "completion_tokens"])
def test_counts_that_can_not_be_are_booked_as_the_most(
    project: Path, server: Server, teacher: Make, name: str, wrong: str, place: str
) -> None:
    said: list[str] = []
    counts = {"prompt_tokens": "100", "completion_tokens": "10", place: wrong}
    body = ", ".join(f'"{key}": {value}' for key, value in counts.items())
    content = '[{"type": "text", "text": "look"}]'
    server.script.append(odd(content, f"{{{body}}}"))
    (advice,) = teacher(name, log=said.append, max_tokens=77).act([situation()])
    chat = len("You play a game.") + len("Goal: Eat.\n\nYou are in a kitchen.") + 2 * 16
    expected = (chat, 10) if place == "prompt_tokens" else (100, 77)
    usage = read_usage(project / "run")
    assert (advice.tokens_in, advice.tokens_out) == (usage.tokens_in, usage.tokens_out) == expected
    assert advice.cost_usd == pytest.approx(usage.spent_usd) and usage.spent_usd > 0
    assert len(said) == 1 and "token count can't be" in said[0] and len(said[0]) < 300


@BOTH
@pytest.mark.parametrize("usage", [None, "null", "[]", '"much"', "7", '{"a": 1}'])
def test_without_counts_the_most_is_booked_and_said_once(
    project: Path, server: Server, teacher: Make, name: str, usage: str | None
) -> None:
    said: list[str] = []
    server.otherwise = odd('[{"type": "text", "text": "look"}]', usage)
    teacher(name, log=said.append, max_tokens=77).act([situation("a"), situation("b")])
    booked = read_usage(project / "run")
    assert booked.calls == 2 and booked.tokens_out == 2 * 77 and booked.tokens_in > 0 and len(said) == 1


@BOTH
@pytest.mark.parametrize("count", ['"100"', "100.0"])
def test_counts_in_another_form_are_read(project: Path, server: Server, teacher: Make, name: str, count: str) -> None:
    usage = f'{{"prompt_tokens": {count}, "completion_tokens": 10}}'
    server.script.append(odd('[{"type": "text", "text": "look"}]', usage))
    (advice,) = teacher(name).act([situation()])
    assert (advice.tokens_in, advice.tokens_out) == (100, 10)


DEEP = "[" * 100_000


@BOTH
@pytest.mark.parametrize(
    "reply", [raw(DEEP), raw('{"choices": ' + DEEP), raw('{"a":' * 50_000), odd(DEEP + "]" * 100_000)]
)
def test_an_answer_nested_thousands_deep_is_booked(
    project: Path, server: Server, teacher: Make, name: str, reply: Behaviour
) -> None:
    said: list[str] = []
    server.script.extend([reply, says("look")])
    (advice,) = teacher(name, log=said.append).act([situation()])
    assert advice.action == "look" and len(server.requests) == 2 and "nested too deeply" in said[0]
    assert read_usage(project / "run").calls == 2


def test_a_body_has_a_size(project: Path, server: Server, teacher: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (replies, transport):
        monkeypatch.setattr(module, "LARGEST_BODY", 1 << 20)
    said: list[str] = []
    server.script.extend([endless, says("look")])
    (advice,) = teacher("paid", log=said.append).act([situation()])
    assert advice.action == "look" and "larger than 1 MiB" in said[0] and read_usage(project / "run").calls == 2
    assert server.sent < 64 << 20  # what was read, and what was under way


def test_a_long_reply_is_cut(server: Server, teacher: Make) -> None:
    server.script.append(says("x" * 300_000))
    (advice,) = teacher("paid").act([situation()])
    assert len(advice.action) == replies.LONGEST_TEXT


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_reply_that_drips_is_late(server: Server, teacher: Make, part: str) -> None:
    said: list[str] = []
    server.script.append(partial(drips, part))
    limits = QUICK.model_copy(update={"timeout_s": 1.0})
    (advice,) = teacher("paid", log=said.append, limits=limits).act([situation()])
    assert advice.action == "look" and "no answer in time" in said[0] and len(server.requests) == 2


# -- pauses


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('[{"error": {"details": [{"@type": "…RetryInfo", "retryDelay": "34.07s"}]}}]', 34.07),
        ("Rate limit reached. Please try again in 1m2.5s. Visit", 62.5),
        ("Please retry in 250ms.", 0.25),
        ("Please retry in 250 milliseconds.", 0.25),
        ("Rate limit exceeded, please wait 34 seconds", 34.0),
        ("requests are limited; resets in 1 hour and 5 minutes", 3900.0),
        ('{"detail": "busy", "retry_after": 34}', 34.0),
        ('{"error": {"retryAfterMs": "3400"}}', 3.4),
        ("we retry 3 models, then wait 5 months", None),
        ("try again after 2 minutes", 120.0),
        ("retry in 1h 5m", 3900.0),
        ("try again later", None),
        ("", None),
    ],
)
def test_a_delay_in_an_error_is_found(body: str, seconds: float | None) -> None:
    assert delay_in(body) == (seconds if seconds is None else pytest.approx(seconds))


def test_a_delay_in_the_body_is_waited_for_and_attempts_alone_end_nothing(server: Server, teacher: Make) -> None:
    said: list[str] = []
    server.script.extend([fails(429, "quota; please retry in 0.31s")] * 4)
    limits = QUICK.model_copy(update={"patience_s": 600.0})
    (advice,) = teacher(limits=limits, log=said.append).act([situation()])
    assert advice.action == "look" and len(server.requests) == 5 and all("in 0.3 s" in line for line in said)


GOOGLE = """[{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan.", "status":
"RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.34s"}]}}]"""


def test_a_quota_of_googles_form_pauses_all_requests_and_ends_none(
    project: Path, server: Server, teacher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", CANARY)
    with (project / "configs" / "teachers.yaml").open("a") as file:
        file.write(f'  gemini: {{provider: google, model: gemini-2.5-flash, base_url: "{server.url}"}}\n')
    said: list[str] = []
    server.script.extend([lambda handler: handler.answer(429, GOOGLE)] * 20)
    limits = QUICK.model_copy(update={"patience_s": 600.0, "concurrency": 4, "attempts": 6})
    situations = [situation(str(i)) for i in range(4)]
    advice = teacher("gemini", limits=limits, log=said.append).act(situations)
    assert [one.action for one in advice] == ["look"] * 4 and len(server.requests) == 24
    assert len(said) == 1 and "You exceeded your current quota" in said[0] and "in 0.3 s" in said[0]


def test_what_one_request_is_told_the_others_heed(server: Server, teacher: Make) -> None:
    """Three requests, two at a time: one is told to wait, the second one is answered then, the third one waits."""
    both, told = threading.Barrier(2), threading.Event()
    arrived: list[float] = []

    def first(handler: Handler) -> None:
        both.wait(60)
        arrived.append(time.monotonic())
        fails(429, retry_after="1")(handler)

    def second(handler: Handler) -> None:
        both.wait(60)
        assert told.wait(60)
        says("open door")(handler)

    def later(handler: Handler) -> None:
        arrived.append(time.monotonic())
        says("look")(handler)

    server.script.extend([first, second])
    server.otherwise = later
    limits = QUICK.model_copy(update={"patience_s": 600.0, "concurrency": 2})
    advice = teacher(limits=limits, log=lambda line: told.set()).act([situation(str(i)) for i in range(3)])
    assert sorted(one.action for one in advice) == ["look", "look", "open door"] and len(server.requests) == 4
    assert min(arrived[1:]) - arrived[0] >= 0.9


@pytest.mark.parametrize("trouble", [fails(429), fails(529), fails(503, "loading the model")])
def test_a_busy_server_is_there_without_having_answered(server: Server, teacher: Make, trouble: Behaviour) -> None:
    server.script.extend([trouble] * 7)
    (advice,) = teacher(limits=QUICK.model_copy(update={"patience_s": 600.0})).act([situation()])
    assert advice.action == "look" and len(server.requests) == 8


def test_a_proxy_that_finds_no_server_is_not_one(server: Server, teacher: Make) -> None:
    server.otherwise = lambda handler: handler.answer(503, "<html>no such host</html>", {"content-type": "text/html"})
    with pytest.raises(R2VError, match=r"503 .*no such host.* in 3 attempts"):
        teacher(limits=QUICK.model_copy(update={"patience_s": 600.0})).act([situation()])


def test_a_run_that_is_resumed_in_an_outage_waits_it_out(server: Server, teacher: Make) -> None:
    limits = QUICK.model_copy(update={"patience_s": 600.0})
    teacher(limits=limits).act([situation("a")])
    server.script.extend([fails(500)] * 7)
    assert teacher(limits=limits).act([situation("b")])[0].action == "look" and len(server.requests) == 9


def test_an_outage_is_waited_out_where_the_server_has_answered_before(server: Server, teacher: Make) -> None:
    asked = teacher(limits=QUICK.model_copy(update={"patience_s": 600.0}))
    asked.act([situation("a")])
    server.script.extend([fails(503)] * 7)
    assert asked.act([situation("b")])[0].action == "look" and len(server.requests) == 9


def test_what_is_kept_can_be_stored(project: Path, server: Server, teacher: Make) -> None:
    server.script.append(odd(r'"look\udfff"'))
    teacher("paid").act([situation()])
    (kept,) = (project / "cache" / "replies").glob("*/*.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["reply"]["text"] == "look\ufffd"


def test_patience_has_an_end(server: Server, teacher: Make) -> None:
    asked = teacher(limits=QUICK.model_copy(update={"patience_s": 0.3, "backoff_s": 0.01}))
    asked.act([situation("a")])
    server.otherwise = fails(503)
    with pytest.raises(R2VError, match=r"503 .*, in \d+ attempts"):
        asked.act([situation("b")])
    assert len(server.requests) > 3


@pytest.mark.parametrize(("name", "finish"), [("paid", '"content_filter"'), ("claude", '"refusal"')])
def test_a_reply_that_was_withheld_is_a_refused_request_that_was_paid_for(
    project: Path, server: Server, teacher: Make, name: str, finish: str
) -> None:
    said: list[str] = []
    server.script.append(odd('"I can not"', usage='{"prompt_tokens": 7, "input_tokens": 7}', finish=finish))
    (advice,) = teacher(name, log=said.append).act([situation()])
    assert advice.action == "" and not advice.detail and "withheld" in str(advice.error)
    assert len(said) == len(server.requests) == 1 and finish.strip('"') in said[0]
    assert read_usage(project / "run").calls == 1
    assert teacher(name).act([situation()])[0].action == "look"  # nothing of it was kept
