"""One request for one token: does a server answer, and what of OpenAI's protocol does it take."""

from __future__ import annotations

from typing import Any

from r2v_core.errors import R2VError
from r2v_core.teachers.anthropic_client import AnthropicClient
from r2v_core.teachers.endpoints import Endpoint, Refused, Transient, translated
from r2v_core.teachers.openai_client import OpenAIClient
from r2v_core.teachers.options import ApiOptions, OpenAIOptions
from r2v_core.teachers.prices import Price

TIMEOUT_S = 60.0
CHAT = [{"role": "system", "content": "Reply with one word."}, {"role": "user", "content": "Are you there?"}]


def one_token(where: Endpoint, price: Price | None) -> dict[str, Any]:
    """What came of it: tokens, seconds, dollars; what the server ``does_without``; whether it takes ``n`` and gives
    log-probabilities (``logprobs``), which no teacher is asked for and an engine behind a server needs.

    Raises:
        R2VError: in one line, if it does not answer.
    """
    said: list[str] = []
    try:
        if where.provider == "anthropic":
            reply = AnthropicClient(where, ApiOptions(max_tokens=1), TIMEOUT_S).ask(CHAT)
            more: dict[str, Any] = {}
        else:
            client = OpenAIClient(where, OpenAIOptions(max_tokens=1), TIMEOUT_S, said.append, "teacher")
            reply = client.ask(CHAT)
            more = {"n": _takes(client, "n", 2), "logprobs": _takes(client, "logprobs", True)}
    except Transient as error:
        raise R2VError(f"{where}: {error}") from None
    return {
        "answered": reply.text.strip() or ("(nothing in one token)" if not reply.refused else reply.refused),
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "cost_usd": price.of(reply.tokens_in, reply.tokens_out) if price else None,
        "latency_s": reply.latency_s,
        "does_without": "; ".join([line.removeprefix(f"{where}: ") for line in said] + [reply.note] * bool(reply.note)),
        **more,
    }


def _takes(client: OpenAIClient, name: str, value: Any) -> bool:
    """Whether a server heeds a parameter: two choices for ``n``, log-probabilities for ``logprobs``."""
    sent = {key: one for key, one in client.dialect.parameters.items() if key not in ("stream", "stream_options")}
    try:
        with translated(client.sdk, client.where):
            answer = client.client.chat.completions.with_raw_response.create(
                model=client.where.model, messages=CHAT, **sent, **{name: value}
            )
        choices = answer.http_response.json()["choices"]
        return len(choices) == value if name == "n" else bool(choices[0]["logprobs"]["content"])
    except (Refused, Transient, ValueError, KeyError, TypeError, IndexError):
        return False
