"""Teachers behind an API, asked for real over HTTP: what is sent, what is made of good and of bad answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.errors import R2VError
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.budget import Budget, BudgetSpent, Usage, gather_usage, read_usage
from tests.teachers.conftest import CANARY, QUICK, situation, step
from tests.teachers.server import Behaviour, Handler, Server, cuts, fails, hangs, raw, says, together

Make = Callable[..., Teacher]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, CANARY)


# -- what is asked


def test_the_model_sees_what_the_agent_saw_and_did(server: Server, teacher: Make) -> None:
    history = [step(0, "go east", "A hall."), step(1, "take key", "A cellar.", "You go east.")]
    (advice,) = teacher(history_steps=1).act([situation("A cellar. You carry a key.", history)])
    assert advice.action == "look"
    (asked,) = server.requests
    assert asked.path == "/v1/chat/completions"
    assert asked.body | {"messages": None} == {"model": "tiny", "temperature": 0.0, "max_tokens": 512, "messages": None}
    assert asked.messages == [
        {"role": "system", "content": "You play a game."},
        {"role": "user", "content": "Goal: Eat.\nDone so far: go east\n\nYou go east.\nA cellar."},
        {"role": "assistant", "content": "take key"},
        {"role": "user", "content": "A cellar. You carry a key."},
    ]


@pytest.mark.usefixtures("keys")
def test_each_provider_is_spoken_to_in_its_own_way(server: Server, teacher: Make) -> None:
    (ours,) = teacher("paid", temperature=None).act([situation()])
    (theirs,) = teacher("claude", max_tokens=7).act([situation()])
    openai, anthropic = server.requests
    assert openai.headers["authorization"] == anthropic.headers["authorization"] == f"Bearer {CANARY}"
    assert "temperature" not in openai.body and openai.body["max_completion_tokens"] == 512
    assert anthropic.path == "/v1/messages" and "temperature" not in anthropic.body
    assert anthropic.body["system"] == "You play a game." and anthropic.body["max_tokens"] == 7
    assert [message["role"] for message in anthropic.messages] == ["user"]
    assert (ours.tokens_in, ours.tokens_out, ours.cost_usd) == (100, 10, pytest.approx((100 * 2.5 + 10 * 10) / 1e6))
    assert (theirs.tokens_in, theirs.tokens_out, theirs.cost_usd) == (100, 10, pytest.approx((100 + 10 * 5) / 1e6))


def test_own_server_costs_nothing_unless_a_price_is_listed(project: Path, teacher: Make) -> None:
    assert teacher().act([situation("a")])[0].cost_usd == 0
    (project / "configs" / "prices.yaml").write_text("prices: {openai_compatible: {tiny: {input: 1, output: 2}}}")
    assert teacher().act([situation("b")])[0].cost_usd == pytest.approx(120e-6)


@pytest.mark.usefixtures("keys")
def test_unknown_price_is_said_and_no_dollars_are_promised(project: Path, teacher: Make) -> None:
    said: list[str] = []
    (advice,) = teacher("new", log=said.append).act([situation()])
    assert advice.detail == {"cost": "unknown"} and read_usage(project / "run").unpriced == 1
    assert len(said) == 1 and "gpt-99" in said[0] and "prices.yaml" in said[0] and "unknown" in said[0]
    with pytest.raises(R2VError, match=r"budget_usd can't be kept.*gpt-99"):
        teacher("new", limits=TeacherLimitsConfig(budget_usd=1))


# -- bad answers


@pytest.mark.parametrize(
    "trouble",
    [
        fails(429, retry_after="0"),
        fails(500),
        fails(503, "overloaded"),
        fails(408),
        cuts,
        raw("{nonsense"),
        raw("<html>proxy</html>", "text/html"),
        raw('{"hello": 1}'),
        raw("[]"),
        raw("null"),
    ],
    ids=["429", "500", "503", "408", "cut", "not json", "html", "other json", "list", "null"],
)
@pytest.mark.parametrize("name", ["mine", "claude"])
@pytest.mark.usefixtures("keys")
def test_passing_trouble_is_waited_out(server: Server, teacher: Make, trouble: Behaviour, name: str) -> None:
    server.script.extend([trouble, trouble, says("open door")])
    (advice,) = teacher(name).act([situation()])
    assert advice.action == "open door" and advice.detail == {} and len(server.requests) == 3
    assert (advice.tokens_in, advice.tokens_out) == (100, 10)


def test_a_slow_server_is_asked_again(server: Server, teacher: Make) -> None:
    server.script.append(hangs)
    (advice,) = teacher(limits=QUICK.model_copy(update={"timeout_s": 1.5})).act([situation()])
    assert advice.action == "look" and len(server.requests) == 2


def test_lasting_trouble_ends_in_one_message(server: Server, teacher: Make) -> None:
    server.otherwise = fails(500, "the disk is full")
    with pytest.raises(R2VError, match=rf"'tiny' at {server.url}.*500.*disk is full.*3 attempts"):
        teacher().act([situation()])
    assert len(server.requests) == 3


def test_a_server_that_is_not_there_ends_in_one_message(project: Path, teacher: Make) -> None:
    file = project / "configs" / "teachers.yaml"
    file.write_text("teachers: {gone: {provider: openai_compatible, model: m, base_url: 'http://127.0.0.1:9/v1'}}")
    with pytest.raises(R2VError, match=r"127\.0\.0\.1:9/v1: connection failed"):
        teacher("gone").act([situation()])


@pytest.mark.parametrize(
    "refusal", [fails(401, "bad key"), fails(404, "no such model"), fails(429, "pay", code="insufficient_quota")]
)
def test_what_waiting_does_not_cure_is_not_waited_for(server: Server, teacher: Make, refusal: Behaviour) -> None:
    server.otherwise = refusal
    with pytest.raises(R2VError, match="refuses: status 4"):
        teacher().act([situation()])
    assert len(server.requests) == 1


def test_a_request_that_fails_for_good_ends_no_other_callers_retries(server: Server, teacher: Make) -> None:
    refused, answered = threading.Event(), threading.Event()

    def behave(handler: Handler) -> None:
        who = handler.seen.messages[-1]["content"].splitlines()[-1]
        if who == "doomed":
            fails(401, "bad key")(handler)
            refused.set()
        elif who == "beside it":  # keeps the failing call open, as requests under way are seen through
            answered.wait(20)
            says("look")(handler)
        elif sum(seen.messages[-1]["content"].endswith(who) for seen in server.requests) < 3:
            refused.wait(20)
            time.sleep(0.3)  # until the other caller has taken its refusal in
            fails(503)(handler)
        else:
            says("look")(handler)
            answered.set()

    server.otherwise = behave
    shared = teacher(limits=QUICK.model_copy(update={"concurrency": 2}))
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(shared.act, [situation("patient")])
        doomed = pool.submit(shared.act, [situation("doomed"), situation("beside it")])
        try:
            assert patient.result(20)[0].action == "look"
        finally:
            answered.set()
        with pytest.raises(R2VError, match="bad key"):
            doomed.result(20)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: Server, teacher: Make, form: str) -> None:
    in_two = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
    server.script.append(fails(429, retry_after="1" if form == "seconds" else in_two))
    began = time.monotonic()
    teacher().act([situation()])
    assert time.monotonic() - began >= (1.0 if form == "seconds" else 0.5) and len(server.requests) == 2


def test_a_pause_of_hours_is_not_waited_for(server: Server, teacher: Make) -> None:
    server.script.append(fails(429, "daily limit", retry_after="7200"))
    with pytest.raises(R2VError, match=r"daily limit.*pause of 7200 s"):
        teacher().act([situation()])


# -- malformed replies


@pytest.mark.parametrize("bad", [says(""), says(None), says("I think.\nOr not."), raw('{"choices": []}')])
def test_a_malformed_reply_is_asked_about_once(server: Server, teacher: Make, bad: Behaviour) -> None:
    server.script.extend([bad, says("open door")])
    (advice,) = teacher().act([situation()])
    assert advice.action == "open door" and set(advice.detail) == {"asked_again"}
    first, second = server.requests
    assert second.messages[:-2] == first.messages
    assert [message["role"] for message in second.messages[-2:]] == ["assistant", "user"]
    assert advice.detail["asked_again"] in second.messages[-1]["content"]


def test_a_reply_that_stays_malformed_is_recorded_and_played(server: Server, teacher: Make) -> None:
    server.script.extend([says("", finish="length"), says("a\nb"), says("look"), says("go east\nand then?")])
    wrong, right = teacher(limits=QUICK.model_copy(update={"concurrency": 1})).act([situation("a"), situation("b")])
    assert right.action == "go east" and right.detail["malformed"] == "the reply has 2 lines"
    assert wrong.action == "look" and "cut off" in wrong.detail["asked_again"]
    assert len(server.requests) == 4 and right.tokens_in == 200


# -- cache, several at once


def test_nothing_is_paid_for_twice(project: Path, server: Server, teacher: Make) -> None:
    first = teacher().act([situation("a"), situation("b"), situation("a")])
    assert len(server.requests) == 2 and first[0] == first[2]
    again = teacher().act([situation("b"), situation("c")])
    assert len(server.requests) == 3 and again[0] == first[1], "the step reports the same tokens and latency"
    usage = read_usage(project / "run")
    assert (usage.calls, usage.cached, usage.tokens_in) == (3, 2, 300)
    teacher(temperature=0.5).act([situation("a")])
    assert len(server.requests) == 4, "another request"


def test_a_damaged_cache_file_is_asked_again(project: Path, server: Server, teacher: Make) -> None:
    teacher().act([situation()])
    (kept,) = (project / "cache" / "replies").glob("*/*.json")
    kept.write_text(kept.read_text()[:-20])
    assert teacher().act([situation()])[0].action == "look"
    assert len(server.requests) == 2 and json.loads(kept.read_text())["reply"]["text"] == "look"


def test_so_many_requests_at_once_and_no_more(server: Server, teacher: Make) -> None:
    server.otherwise = together(threading.Barrier(3), says("look"))
    advice = teacher(limits=QUICK.model_copy(update={"concurrency": 3})).act([situation(str(i)) for i in range(9)])
    assert len(advice) == 9 and len(server.requests) == 9 and server.most_at_once == 3


# -- budgets


def test_calls_end_with_the_budget_and_go_on_with_a_larger_one(project: Path, server: Server, teacher: Make) -> None:
    situations = [situation(str(i)) for i in range(6)]
    limits = QUICK.model_copy(update={"budget_calls": 4})
    for _ in range(2):  # the second time nothing is left of it
        with pytest.raises(BudgetSpent, match=r"budget_calls: the run's 4 teacher calls are used up"):
            teacher(limits=limits).act(situations)
        assert len(server.requests) == 4
    assert len(teacher(limits=limits.model_copy(update={"budget_calls": 6})).act(situations)) == 6
    assert len(server.requests) == 6 and read_usage(project / "run").calls == 6


def test_shards_divide_a_budget_however_often_one_of_them_begins_again(tmp_path: Path) -> None:
    def ask(shard: int, of: int = 2) -> int:
        budget, calls = Budget(tmp_path, calls=7, usd=0.0, rank=shard, processes=of, sharded=True), 0
        with pytest.raises(BudgetSpent, match=rf"shard's share is 1/{of}; materialise again to divide what is left"):
            while True:
                with budget.call(0.0) as booked:
                    booked.append(Usage(calls=1))
                calls += 1
        return calls

    assert [ask(0), ask(0), ask(1), ask(0), ask(1)] == [4, 0, 3, 0, 0]
    gather_usage(tmp_path)
    assert read_usage(tmp_path).calls == 7 and [path.name for path in tmp_path.iterdir()] == ["teacher_usage.json"]
    (tmp_path / "teacher_usage.json").write_text('{"calls": 4, "spent_usd": 1.0}')
    dollars = [Budget(tmp_path, 0, 3.0, shard, 4, sharded=True) for shard in range(4)]
    for budget in dollars:
        with budget.call(0.5) as booked:
            booked.append(Usage(calls=1, spent_usd=0.5))
        with pytest.raises(BudgetSpent), budget.call(0.01):
            pass
    assert [ask(shard, 3) for shard in range(3)] == [
        0,
        0,
        0,
    ]  # four of seven were spent before, and one by each of these
    gather_usage(tmp_path)
    assert read_usage(tmp_path) == Usage(calls=8, spent_usd=3.0)


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("concurrency", [1, 8])
def test_dollars_are_never_exceeded(project: Path, server: Server, teacher: Make, concurrency: int) -> None:
    price = (100 * 2.5 + 10 * 10) / 1e6
    limits = QUICK.model_copy(update={"budget_usd": 0.02, "concurrency": concurrency})
    with pytest.raises(BudgetSpent, match=r"budget_usd: \$0\.\d+ of \$0\.02 are spent"):
        teacher("paid", limits=limits).act([situation(str(i)) for i in range(100)])
    usage = read_usage(project / "run")
    assert usage.calls == len(server.requests) and usage.spent_usd == pytest.approx(usage.calls * price)
    assert 0.01 < usage.spent_usd <= 0.02


@pytest.mark.parametrize("name", ["mine", "claude"])
@pytest.mark.parametrize("refusal", [fails(400, "context too long"), fails(422, "filtered")])
def test_a_request_refused_for_what_is_in_it_concerns_its_situation_alone(
    project: Path, server: Server, teacher: Make, monkeypatch: pytest.MonkeyPatch, name: str, refusal: Behaviour
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    server.script.append(refusal)
    limits = QUICK.model_copy(update={"concurrency": 1})
    first, second = teacher(name, limits=limits).act([situation("a"), situation("b")])
    assert first.error is not None and " refuses: " in first.error and first.action == "" and not first.detail
    assert (second.error, second.action) == (None, "look")
    assert len(server.requests) == 2  # neither asked again nor asked about
    assert teacher(name, limits=limits).act([situation("a")])[0].action == "look"  # and nothing of it was kept
    assert read_usage(project / "run").calls == 2


def test_failed_requests_are_no_calls(project: Path, server: Server, teacher: Make) -> None:
    server.script.extend([fails(401), says("look")])
    limits = QUICK.model_copy(update={"budget_calls": 1, "concurrency": 1})
    with pytest.raises(R2VError, match="refuses"):
        teacher(limits=limits).act([situation()])
    assert teacher(limits=limits).act([situation()])[0].action == "look"
    assert read_usage(project / "run").calls == 1


# -- keys


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("gpt-4o", "OPENAI_API_KEY"),
        ("claude-sonnet-4-6", "ANTHROPIC_API_KEY"),
        ("gemini-2.5-flash", "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("deepseek-chat", "DEEPSEEK_API_KEY"),
    ],
)
def test_a_missing_key_is_named_before_any_work(teacher: Make, name: str, variables: str) -> None:
    with pytest.raises(R2VError, match=f"teacher '{name}'.*set the environment variable {variables};"):
        teacher(name)


def test_the_key_stays_where_it_is(
    project: Path, server: Server, teacher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    lines: list[str] = []
    server.script.extend([fails(429, f"slow down {CANARY}", retry_after="0"), says(f"the key is {CANARY}")])
    teacher("paid", log=lines.append).act([situation()])
    server.script.append(fails(403, f"key {CANARY} is not allowed"))
    with pytest.raises(R2VError) as caught:
        teacher("paid", log=lines.append).act([situation("b")])
    assert "[key]" in str(caught.value) and len(lines) == 1
    assert all(request.headers["authorization"].endswith(CANARY) for request in server.requests)
    kept = [path.read_text() for path in project.rglob("*") if path.is_file()]
    assert any("the key is [key]" in text for text in kept)
    assert not any(CANARY in text for text in [*kept, *lines, str(caught.value), repr(caught.value)])
