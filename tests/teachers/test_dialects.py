"""Servers of OpenAI's protocol that do not take all of it: found out once, said once, done without or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2v_core.errors import R2VError
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.budget import read_usage
from tests.teachers.conftest import CANARY, QUICK, situation
from tests.teachers.server import USAGE, Behaviour, Handler, Server, fails, raw, says

Make = Callable[..., Teacher]
OPENAI_LIMIT = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
OPENAI_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def openai_error(message: str, status: int = 400) -> Behaviour:
    return fails(status, message)


def pydantic_error(parameter: str) -> Behaviour:
    """What a server answers that checks its input with pydantic."""
    detail = [{"type": "extra_forbidden", "loc": ["body", parameter], "msg": "Extra inputs are not permitted"}]
    return lambda handler: handler.answer(422, json.dumps({"detail": detail}))


def events(*given: dict[str, Any], end: str = "data: [DONE]\n\n") -> Behaviour:
    """A stream of chat.completion.chunk events."""
    body = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in given) + end
    return lambda handler: handler.answer(200, body, {"content-type": "text/event-stream"})


def chunk(content: Any, finish: str | None = None) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


def streamed(text: str, usage: bool = True) -> Behaviour:
    last = [{"id": "1", "choices": [], "usage": USAGE}] if usage else []
    return events(
        {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}, *map(chunk, text), chunk("", "stop"), *last
    )


def unless(allowed: Callable[[dict[str, Any]], bool], refusal: Behaviour, answer: Behaviour) -> Behaviour:
    """A server that answers what it takes and refuses the rest."""
    return lambda handler: (answer if allowed(handler.seen.body) else refusal)(handler)


def without(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: name not in body


CASES = {
    "max_tokens as OpenAI refuses it": ("mine", without("max_tokens"), openai_error(OPENAI_LIMIT), says("look")),
    "max_tokens as pydantic does": ("mine", without("max_tokens"), pydantic_error("max_tokens"), says("look")),
    "max_completion_tokens": (
        "paid",
        without("max_completion_tokens"),
        openai_error("Unrecognized request argument supplied: max_completion_tokens"),
        says("look"),
    ),
    "temperature": ("mine", without("temperature"), openai_error(OPENAI_TEMPERATURE), says("look")),
    "streams only": (
        "mine",
        lambda body: body.get("stream", False),
        openai_error("This model only support stream mode, please enable the stream parameter to access the model."),
        streamed("look"),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_a_server_does_not_take_is_found_once_said_once_and_done_without(
    project: Path, server: Server, teacher: Make, case: str, concurrency: int
) -> None:
    name, allowed, refusal, answer = CASES[case]
    said: list[str] = []
    server.otherwise = unless(allowed, refusal, answer)
    asked = teacher(name, log=said.append, limits=QUICK.model_copy(update={"concurrency": concurrency}))
    advice = asked.act([situation(str(i)) for i in range(6)])
    assert [(one.action, one.error, one.tokens_in) for one in advice] == [("look", None, 100)] * 6
    assert len(said) == 1 and "(said once)" in said[0] and "\n" not in said[0]
    assert 7 <= len(server.requests) <= 6 + concurrency, "those under way when it was found out are made again"
    assert read_usage(project / "run").calls == 6
    (limit,) = {"max_tokens", "max_completion_tokens"} & set(server.requests[-1].body)
    assert server.requests[-1].body[limit] == 512


def test_several_things_that_a_server_does_not_take(server: Server, teacher: Make) -> None:
    said: list[str] = []
    answer = unless(without("stream_options"), pydantic_error("stream_options"), streamed("look", usage=False))
    for key in ("temperature", "max_tokens"):
        answer = unless(without(key), pydantic_error(key), answer)
    server.otherwise = unless(lambda body: body.get("stream", False), openai_error("streaming is required"), answer)
    (advice,) = teacher(log=said.append).act([situation()])
    body = server.requests[-1].body
    assert advice.action == "look" and set(body) == {"model", "messages", "stream", "max_completion_tokens"}
    assert len(said) == 5, "four parameters, and that there were no counts"


def test_a_temperature_that_was_asked_for_is_not_left_out(server: Server, teacher: Make) -> None:
    server.otherwise = unless(without("temperature"), openai_error(OPENAI_TEMPERATURE), says("look"))
    with pytest.raises(R2VError, match=r"Only the default.*set teacher\.options\.temperature=null") as caught:
        teacher(temperature=0.3).act([situation()])
    assert "\n" not in str(caught.value) and len(server.requests) == 1
    assert teacher(temperature=None).act([situation()])[0].action == "look"


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 512. This model supports at most 256 completion tokens, whereas you provided 512.",
        "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens; reduce max_tokens.",
        "temperature must be between 0 and 1",
        "content is not allowed here",
    ],
)
def test_a_refusal_of_something_else_is_one(server: Server, teacher: Make, message: str) -> None:
    said: list[str] = []
    server.otherwise = openai_error(message)
    (advice,) = teacher(log=said.append).act([situation()])
    assert message[:40] in str(advice.error) and len(server.requests) == 1 and "said once" not in said[0]


def test_a_limit_by_another_name_is_found_by_its_effect(project: Path, server: Server, teacher: Make) -> None:
    """A server that passes over ``max_completion_tokens`` writes on."""

    def writes_on(handler: Handler) -> None:
        used = {**USAGE, "completion_tokens": min(handler.seen.body.get("max_tokens", 900), 900)}
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "look"}}
        handler.answer(200, json.dumps({"choices": [choice], "usage": used}))

    said: list[str] = []
    server.otherwise = writes_on
    asked = teacher("paid", log=said.append, max_tokens=7)
    asked.act([situation("a")])
    asked.act([situation("b")])
    assert [request.body.get("max_tokens") for request in server.requests] == [None, 7]
    assert len(said) == 1 and "900 tokens came for max_completion_tokens=7" in said[0]
    assert read_usage(project / "run").tokens_out == 907


# -- streams


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (streamed("open the door"), "open the door"),
        (events(chunk("<action>a\u2028"), chunk(None), chunk("b</action>", "stop"), end=""), "a\u2028b"),
        (events(chunk([{"type": "text", "text": "open "}]), chunk("door", "stop")), "open door"),
        (
            events({"choices": [{"index": 0, "message": {"content": "open door"}, "finish_reason": "stop"}]}),
            "open door",
        ),
        (
            raw(': ping\r\nevent: x\r\ndata:{"choices":[{"delta":{"content":"look"},"finish_reason":"stop"}]}\r\n'),
            "look",
        ),
    ],
)
def test_a_stream_is_read_asked_for_or_not(server: Server, teacher: Make, reply: Behaviour, action: str) -> None:
    server.script.append(reply)
    (advice,) = teacher().act([situation()])
    assert advice.action == action and len(server.requests) == 1


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (events(chunk("loo"), end=""), "broke off"),
        (events(chunk("loo"), {"error": {"message": f"overloaded {CANARY}"}}), "overloaded [key]"),
        (raw("data: {oh"), "is not JSON"),
    ],
)
def test_a_stream_that_breaks_off_is_no_reply(
    project: Path, server: Server, teacher: Make, trouble: Behaviour, told: str
) -> None:
    said: list[str] = []
    server.script.append(trouble)
    (advice,) = teacher("paid", log=said.append).act([situation()])
    assert advice.action == "look" and len(server.requests) == 2 and read_usage(project / "run").calls == 1
    assert len(said) == 1 and told in said[0]
