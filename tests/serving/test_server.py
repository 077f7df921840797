"""A server in this process, asked through OpenAI's own client."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from r2v_core.agent.features import FEATURES
from r2v_core.errors import R2VError
from tests.serving.conftest import Serve
from tests.teachers.server import Server, fails, says, together

GOAL = "Goal: Eat the secret cheese."
KITCHEN, HALL = "You are in the kitchen.\nYou carry nothing.", "You are in the hall.\nYou carry nothing."
NEW = f"{GOAL}\n\n{KITCHEN}"
STUCK = (NEW, "open fridge", f"It is locked.\n{KITCHEN}")


def test_the_small_model_acts_and_the_teacher_where_the_router_says_so(serve: Serve, teacher: Server) -> None:
    served = serve()
    first = served.ask(NEW)
    assert first.choices[0].message.content in ("open fridge", "look") and first.model == "textworld:mine|1"
    assert first.r2v["actor"] == "slm" and first.r2v["score"] == pytest.approx(0.2689, abs=1e-4)
    assert (first.r2v["threshold"], first.r2v["teacher_calls"], first.r2v["cost"]) == (0.5, 0, 1.0)
    teacher.otherwise = says("take key")
    second = served.ask(*STUCK)
    assert second.choices[0].message.content == "take key"
    assert second.r2v["actor"] == "teacher" and second.r2v["score"] == pytest.approx(0.7311, abs=1e-4)
    assert (second.r2v["step"], second.r2v["teacher_calls"], second.r2v["cost"]) == (1, 1, 51.0)
    assert second.usage.prompt_tokens > 100 and second.usage.completion_tokens > 10  # both models'
    (asked,) = teacher.requests  # what the teacher reads is what the agent saw
    assert [turn["content"] for turn in asked.messages[1:]] == list(STUCK)
    assert asked.messages[0]["content"].startswith("You play a text game.")


def test_headers_say_the_same(serve: Serve) -> None:
    served = serve()
    raw = served.client.chat.completions.with_raw_response.create(
        model=served.name, messages=[{"role": "user", "content": NEW}], extra_headers={"X-Episode-Id": "try 7"}
    )
    told = raw.parse().r2v
    assert (
        raw.headers["x-r2v-actor"] == told["actor"] == "slm"
        and raw.headers["x-episode-id"] == told["episode"] == "try 7"
    )
    assert float(raw.headers["x-r2v-score"]) == told["score"] and float(raw.headers["x-r2v-threshold"]) == 0.5
    assert raw.headers["x-r2v-teacher-calls"] == "0"


@pytest.mark.parametrize("log_messages", [False, True])
def test_each_decision_is_a_line_with_content_only_on_request(serve: Serve, log_messages: bool) -> None:
    served = serve(log_messages=log_messages)
    served.ask(NEW)
    served.ask(*STUCK)
    first, second = served.lines()
    assert tuple(second["features"]) == FEATURES and second["features"]["state_seen"] == 1.0
    assert (first["actor"], second["actor"]) == ("slm", "teacher") and first["episode"] == second["episode"]
    assert second["tokens_in"] > 100 and second["cost"] == 51.0 and second["latency_s"] > 0 and second["time"]
    assert ("cheese" in json.dumps(second)) == log_messages
    assert second.get("action") == ("look" if log_messages else None)


def test_a_request_made_again_counts_once(serve: Serve) -> None:
    served = serve()
    once, again = served.ask(*STUCK), served.ask(*STUCK)
    assert once.r2v["teacher_calls"] == again.r2v["teacher_calls"] == 1
    third = served.ask(*STUCK, "look", f"You see a fridge.\n{KITCHEN}")
    assert third.r2v["teacher_calls"] == 2 and third.r2v["step"] == 2


def test_an_episode_with_a_name_is_one_even_where_the_client_shows_its_end_alone(serve: Serve) -> None:
    served = serve()
    served.ask(NEW, episode="a")
    served.ask(*STUCK, episode="a")
    end = f"{GOAL}\nDone so far: open fridge; look\n\nYou see a fridge.\n{KITCHEN}"
    named, unnamed = served.ask(end, episode="a"), served.ask(end)
    assert named.r2v["step"] == unnamed.r2v["step"] == 2
    assert named.r2v["teacher_calls"] == 2 and unnamed.r2v["teacher_calls"] == 0
    seen = [line["features"]["state_seen"] for line in served.lines()[-2:]]
    assert seen == [2.0, 0.0]


def test_an_episode_that_has_spent_its_budget_goes_on_with_the_small_model(serve: Serve) -> None:
    served = serve("agent.max_teacher_calls=1")
    assert served.ask(*STUCK).r2v["actor"] == "teacher"
    more = served.ask(*STUCK, "look", f"A fridge.\n{KITCHEN}")
    assert (more.r2v["actor"], more.r2v["escalate"], more.r2v["blocked"]) == ("slm", True, "budget")


def test_once_the_teachers_limit_is_used_up_the_small_model_goes_on_and_the_log_says_so(serve: Serve) -> None:
    served = serve("teacher.limits.budget_calls=1")
    assert served.ask(*STUCK).r2v["blocked"] is None
    for feedback in ("It is dark.", "It is darker."):
        raw = served.ask(NEW, "look", f"{feedback}\n{KITCHEN}")
        assert (raw.r2v["actor"], raw.r2v["blocked"], raw.r2v["cost"]) == ("slm", "teacher.limits", 1.0)
        assert raw.choices[0].message.content in ("open fridge", "look")
    assert served.ask(*STUCK).r2v["actor"] == "teacher"  # a reply that was paid for
    assert [line["blocked"] for line in served.lines()] == [None, "teacher.limits", "teacher.limits", None]
    (said,) = [line for line in served.said if "budget_calls" in line]
    assert "the run's 1 teacher calls are used up" in said and "the small model plays on" in said


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (fails(400, "content filter"), 422, "teacher_refused"),
        (fails(500, "down"), 503, "teacher_unavailable"),
        (fails(401, "bad key"), 502, "teacher_failed"),
    ],
)
def test_a_teacher_without_an_answer_is_an_error_and_no_step(
    serve: Serve, teacher: Server, behaviour: Any, status: int, code: str
) -> None:
    served = serve()
    teacher.script.append(behaviour)
    with pytest.raises(openai.APIStatusError) as refused:
        served.ask(*STUCK)
    assert (refused.value.status_code, refused.value.body["code"]) == (status, code)  # type: ignore[index]
    assert served.lines()[-1]["error"] == code.removeprefix("teacher_") and served.lines()[-1]["teacher_calls"] == 0
    assert served.ask(*STUCK).r2v["teacher_calls"] == 1


def test_another_teacher_may_be_named_with_options_of_its_own(serve: Serve, teacher: Server) -> None:
    scripted = {"engine": "scripted", "engine_options": {"otherwise": ["eat cheese"]}}
    served = serve(partition="textworld:expert|1", teacher="smollm2", teacher_options=scripted)
    reply = served.ask(*STUCK)
    assert reply.model == "textworld:expert|1" and reply.choices[0].message.content == "eat cheese"
    assert not teacher.requests and served.opened.about["teacher"] == "smollm2"
    assert any("calibrated with teacher 'expert'" in warning for warning in served.opened.warnings)


def test_several_ask_at_once_and_wait_for_the_teacher_together(serve: Serve, teacher: Server) -> None:
    served = serve()
    teacher.script.extend([together(threading.Barrier(3), says("look"))] * 3)
    chats = [(f"Goal: Eat {i}.\n\n{KITCHEN}", "look", f"No.\n{KITCHEN}") for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda chat: served.ask(*chat), chats))
    assert {reply.r2v["actor"] for reply in replies} == {"teacher"}
    assert len({line["episode"] for line in served.lines()}) == len({reply.id for reply in replies}) == 12


def test_models_and_health_are_told(serve: Serve) -> None:
    served = serve("evaluation.router_threshold=0.9")
    assert [model.id for model in served.client.models.list()] == ["textworld:mine|1"]
    with urllib.request.urlopen(f"{served.url}/health", timeout=10) as reply:
        told = json.load(reply)
    assert told["status"] == "ok" and told["threshold"] == 0.9 and told["teacher"] == "mine"
    assert set(told["runs"]) == {"policy", "verifier", "router"}
    assert served.ask(*STUCK).r2v["actor"] == "slm"


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({"stream": True}, 400, "leave 'stream' out"),
        ({"n": 2}, 400, "n is 1, not 2"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "leave 'tools' out"),
        ({"model": "gpt-4o"}, 404, "only 'textworld:mine|1'"),
        ({"messages": []}, 400, "expected a list of messages"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, 400, r"messages\[0\].role: expected 'user'"),
        ({"messages": [{"role": "user", "content": NEW}, {"role": "assistant", "content": "a"}]}, 400, "the last one"),
        ({"messages": [{"role": "user", "content": "Goal: \n\nA room."}]}, 400, "there is no goal"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]},
            400,
            "expected system, user or assistant",
        ),
        ({"extra_headers": {"X-Episode-Id": "x" * 201}}, 400, "1 to 200 characters, not 201"),
    ],
)
def test_what_can_not_be_answered_is_refused_in_openais_form(
    serve: Serve, more: dict[str, Any], status: int, message: str
) -> None:
    served = serve()
    request: dict[str, Any] = {"model": served.name, "messages": [{"role": "user", "content": NEW}], **more}
    with pytest.raises(openai.APIStatusError, match=message) as refused:
        served.client.chat.completions.create(**request)
    assert refused.value.status_code == status and refused.value.body["type"] == "invalid_request_error"  # type: ignore[index]
    assert not served.lines()


def _status(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_key_types_and_paths_are_looked_at(serve: Serve) -> None:
    served = serve(key="k-1")
    chat, good = (
        f"{served.url}/v1/chat/completions",
        json.dumps({"model": served.name, "messages": [{"role": "user", "content": NEW}]}).encode(),
    )
    as_json = {"Content_Type": "application/json"}
    assert _status(chat, good, **as_json)[0] == _status(f"{served.url}/v1/models")[0] == 401
    assert _status(chat, good, **as_json, Authorization="Bearer k-1")[0] == 200
    assert _status(f"{served.url}/health")[0] == 200
    assert _status(chat, good, Content_Type="text/plain", Authorization="Bearer k-1")[0] == 415
    assert _status(chat, b"{", **as_json, Authorization="Bearer k-1")[0] == 400
    half = _status(chat, good.replace(b"kitchen", rb"\ud800"), **as_json, Authorization="Bearer k-1")
    assert half[0] == 400 and "messages[0].content: half of a character" in half[1]
    assert _status(chat)[0] == 405
    status, told = _status(f"{served.url}/v1/completions", good)
    assert status == 404 and "POST /v1/chat/completions" in json.loads(told)["error"]["message"]


def test_a_log_that_can_not_be_written_is_refused(serve: Serve, project: Path) -> None:
    with pytest.raises(R2VError, match=r"--log .*configs: can't be written"):
        serve(log=project / "configs")
    assert not list((project / "outputs/serve").iterdir())
