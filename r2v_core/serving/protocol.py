"""OpenAI's protocol, as far as an agent needs it: what a request may ask for, and what replies and errors look like."""

from __future__ import annotations

import time
import uuid
from typing import Any

from r2v_core.serving.service import Answer, Service, Unanswered

EPISODE = "X-Episode-Id"
LONGEST_NAME = 200
"""Characters of an episode's name."""

_REFUSED = {
    "stream": "a reply is one short action and comes whole; leave 'stream' out",
    "tools": "actions are text; leave 'tools' out and tell the agent in its messages what it can do",
    "functions": "actions are text; leave 'functions' out and tell the agent in its messages what it can do",
    "logprobs": "a reply may be the teacher's, which has none; leave 'logprobs' out",
}
_UNANSWERED = {"refused": 422, "unavailable": 503, "failed": 502}


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def check_request(body: Any, model: str) -> Any:
    """The messages of a request that can be answered.

    Raises:
        ApiError: saying which parameter is wrong, and what to do.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "expected a JSON object with 'model' and 'messages'")
    if body.get("model") != model:
        raise ApiError(
            404,
            f"model: {body.get('model')!r} is not served here; use '{model}' (GET /v1/models)",
            "model_not_found",
            "model",
        )
    for name, why in _REFUSED.items():
        if body.get(name):
            raise ApiError(400, f"{name}: {why}", "unsupported_parameter", name)
    if body.get("n") not in (None, 1):
        raise ApiError(
            400, f"n: one request is one step of an episode; n is 1, not {body['n']!r}", "unsupported_value", "n"
        )
    return body.get("messages")


def check_name(name: str | None) -> str | None:
    """The episode's name from the request's header; None where there is none.

    Raises:
        ApiError: for a name that is too long.
    """
    if name is not None and not 0 < len(name) <= LONGEST_NAME:
        raise ApiError(400, f"{EPISODE}: a name has 1 to {LONGEST_NAME} characters, not {len(name)}")
    return name


def unanswered(error: Unanswered) -> ApiError:
    """The answer where the teacher gave none."""
    return ApiError(_UNANSWERED[error.why], str(error), f"teacher_{error.why}")


def completion(answer: Answer, model: str) -> dict[str, Any]:
    """The body of a reply: OpenAI's, and under ``r2v`` how the step was decided."""
    choice = answer.choice
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": choice.action}, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": choice.tokens_in,
            "completion_tokens": choice.tokens_out,
            "total_tokens": choice.tokens_in + choice.tokens_out,
        },
        "r2v": answer.facts(),
    }


def headers(answer: Answer) -> dict[str, str]:
    """The same in headers, for clients that pass on nothing but the text."""
    decision = answer.decision
    return {
        EPISODE: answer.episode,
        "X-R2V-Actor": answer.choice.actor,
        "X-R2V-Score": repr(decision.probability),
        "X-R2V-Threshold": repr(decision.threshold),
        "X-R2V-Teacher-Calls": str(answer.teacher_calls),
        **({"X-R2V-Blocked": decision.blocked} if decision.blocked else {}),
    }


def models(service: Service, since: int) -> dict[str, Any]:
    """The list of models: the one that is served, since when (Unix seconds)."""
    return {"object": "list", "data": [{"id": service.name, "object": "model", "created": since, "owned_by": "r2v"}]}
