"""``r2v teachers``: which teachers can be asked from here, and what to do about the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.errors import R2VError
from r2v_core.teachers import readiness
from r2v_core.teachers.base import Teacher
from tests.teachers.conftest import CANARY, situation
from tests.teachers.server import Behaviour, Handler, Server, fails, hangs, lists, odd, raw, says

OURS = ["mine", "paid", "claude", "new"]


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2V_PROJECT", str(project))
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", CANARY)
    # the built-in ones of OpenAI and Anthropic would be asked for real: only ours have a key
    file = project / "configs" / "teachers.yaml"
    text = file.read_text().replace('/v1"}', '/v1", key_env: TEST_KEY}').replace('"}', '", key_env: TEST_KEY}')
    file.write_text(text)
    monkeypatch.setenv("TEST_KEY", CANARY)


def teachers(*arguments: str) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["teachers", "--json", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert CANARY not in done.output
    return {row["teacher"]: row for row in json.loads(done.output)}


def test_ready_are_those_whose_key_is_set_and_whose_address_answers(server: Server) -> None:
    found = teachers()
    assert [found[name]["ready"] for name in OURS] == [True] * 4 and found["mine"]["address"] == f"{server.url}/v1"
    assert sorted(look.path.split("?")[0] for look in server.looks) == ["/v1/models"] * 4 and not server.requests
    assert found["expert"]["ready"] and found["smollm2"]["ready"]
    assert not found["gpt-4o"]["ready"] and found["gpt-4o"]["to_do"] == "set the environment variable OPENAI_API_KEY"
    assert (found["paid"]["usd_in"], found["paid"]["usd_out"]) == (2.5, 10.0)
    assert found["paid"]["as_of"] == "2026-03-21" and found["paid"]["source"].startswith("https://")
    assert found["new"]["usd_in"] is None and found["mine"]["usd_in"] == 0


def test_offline_nobody_is_asked(server: Server) -> None:
    assert teachers("--offline")["mine"]["ready"] and not server.looks and not server.requests


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (fails(401, f"bad key {CANARY}"), "refuses the key (status 401)"),
        (fails(500), "answers with status 500"),
        (hangs, "does not answer within"),
        (lists("other", "models/gpt-4o"), "does not list the model 'tiny', but models/gpt-4o, other"),
    ],
)
def test_an_address_that_would_not_answer_a_run_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch, models: Behaviour, told: str
) -> None:
    monkeypatch.setattr(readiness, "TIMEOUT_S", 1.0)
    server.models = models
    row = teachers()["mine"]
    assert not row["ready"] and told in row["to_do"] and server.url in row["to_do"] and "\n" not in row["to_do"]


@pytest.mark.parametrize("models", [fails(404), fails(429), raw("welcome", "text/plain"), raw("[]"), lists()])
def test_a_server_without_a_list_of_models_answers_all_the_same(server: Server, models: Behaviour) -> None:
    server.models = models
    assert teachers()["mine"]["ready"]


def test_a_server_that_is_not_there_and_an_address_cut_short(project: Path, server: Server) -> None:
    server.models = fails(404)
    server.otherwise = fails(404)
    with (project / "configs" / "teachers.yaml").open("a") as file:
        file.write("  gone: {provider: openai_compatible, model: m, base_url: 'http://127.0.0.1:9/v1'}\n")
        file.write(f"  short: {{provider: openai_compatible, model: m, base_url: '{server.url}'}}\n")
        file.write("  unset: {provider: openai_compatible, model: m, base_url: '${oc.env:NO_SUCH_VARIABLE}'}\n")
        file.write("  folder: {provider: local, model: ./no/such/folder}\n")
    found = teachers()
    assert "127.0.0.1:9/v1 can't be reached" in found["gone"]["to_do"]
    assert "ends in /v1" in found["short"]["to_do"] and "NO_SUCH_VARIABLE" in found["unset"]["to_do"]
    assert "not a packaged model, a folder here" in found["folder"]["to_do"]
    with pytest.raises(R2VError, match=r"status 404.*; most servers want a base_url that ends in /v1"):
        teachers("--ask", "short")


@pytest.mark.parametrize("name", ["paid", "claude"])
def test_one_token_on_request(server: Server, name: str) -> None:
    server.otherwise = odd('[{"type": "text", "text": "look"}]', '{"prompt_tokens": 7, "completion_tokens": 1}')
    row = teachers("--ask", name)[name]
    assert (
        row["answered"] == "look"
        and (row["tokens_in"], row["tokens_out"]) == (7, 1)
        and row["cost_usd"] > 0
        and row["does_without"] == ""
    )
    assert {
        request.body.get("max_completion_tokens", request.body.get("max_tokens")) for request in server.requests
    } == {1}


def test_the_test_says_what_a_server_takes(server: Server) -> None:
    def answers(handler: Handler) -> None:
        body = handler.seen.body
        if "temperature" in body:
            return fails(400, "temperature is not supported")(handler)
        choice = {"index": 0, "message": {"content": "yes"}, "finish_reason": "length"}
        choice |= {"logprobs": {"content": [{"token": "yes", "logprob": -0.1}]}} if body.get("logprobs") else {}
        handler.answer(200, json.dumps({"choices": [choice]}))  # one, whatever n is

    server.otherwise = answers
    row = teachers("--ask", "mine")["mine"]
    assert (row["n"], row["logprobs"]) == (False, True)
    assert "no temperature is sent" in row["does_without"] and "token count" in row["does_without"]


def test_who_has_no_api_is_not_asked() -> None:
    with pytest.raises(R2VError, match="'env' has no API to ask"):
        teachers("--ask", "expert")
    with pytest.raises(R2VError, match="Unknown teacher 'gpt-4p'"):
        teachers("--ask", "gpt-4p")


def test_openai_at_an_address_of_ones_own(server: Server, teacher: Callable[..., Teacher]) -> None:
    """``provider: openai`` with ``base_url``, as documented: OpenAI's parameters, key and prices."""
    server.otherwise = says("open door")
    (advice,) = teacher("paid").act([situation()])
    (asked,) = server.requests
    assert advice.action == "open door" and asked.path == "/v1/chat/completions" and advice.cost_usd > 0
    assert asked.headers["authorization"] == f"Bearer {CANARY}" and asked.body["max_completion_tokens"] == 512
