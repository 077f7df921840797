"""Chats through the OpenAI SDK: OpenAI itself, and every server that speaks its protocol.

Google and DeepSeek document such an interface of their own, and vLLM, SGLang, llama.cpp and ``transformers serve``
offer it, so one client serves all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from r2v_core.teachers.chat import Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.dialect import Dialect, Parameters
from r2v_core.teachers.endpoints import Endpoint, Refused, Transient, import_sdk, translated
from r2v_core.teachers.event_stream import is_stream, whole
from r2v_core.teachers.options import OpenAIOptions
from r2v_core.teachers.replies import Parts, fields, read_reply
from r2v_core.teachers.transport import connection


class OpenAIClient:
    """One request at a time from any number of threads; repeats one only in a form that the server takes."""

    def __init__(
        self, where: Endpoint, options: OpenAIOptions, timeout_s: float, log: Callable[[str], None], role: str
    ) -> None:
        self.where = where
        self.sdk = import_sdk("openai")
        self.max_tokens = options.max_tokens
        limit = "max_completion_tokens" if where.provider == "openai" else "max_tokens"
        parameters: Parameters = {limit: options.max_tokens}
        asked_for = {}
        if options.temperature is not None:
            parameters["temperature"] = options.temperature
            if "temperature" in options.model_fields_set:
                asked_for["temperature"] = f"set {role}.options.temperature=null to sample at the server's own"
        self.dialect = Dialect(where, parameters, asked_for, log)
        self.client = self.sdk.OpenAI(**connection(self.sdk, where, timeout_s))

    def ask(self, messages: list[Message]) -> Reply:
        """The model's reply to a chat.

        Raises:
            Transient: if asking again may help.
            R2VError: if it won't.
        """
        while True:
            sent, began = self.dialect.parameters, time.perf_counter()
            try:
                with translated(self.sdk, self.where):
                    answer = self.client.chat.completions.with_raw_response.create(
                        model=self.where.model, messages=messages, **sent
                    )
                break
            except Refused as refusal:
                if not self.dialect.learn(sent, refusal):
                    raise
        body, latency_s = answer.http_response.content, round(time.perf_counter() - began, 4)
        if is_stream(body):
            body = whole(body, self.where.redacted)
        reply = read_reply(self.where, body, _parts, messages, self.max_tokens, latency_s)
        self.dialect.answered(sent, reply.tokens_out)
        return reply


def _parts(answer: dict[str, Any]) -> Parts:
    """An answer of OpenAI's protocol, taken apart."""
    if not isinstance(answer.get("choices"), list):
        raise Transient("the answer has no list of choices")
    choice = fields(answer["choices"][0] if answer["choices"] else None)
    usage = fields(answer.get("usage"))
    said = fields(choice.get("message")).get("content")
    return said, usage.get("prompt_tokens"), usage.get("completion_tokens"), choice.get("finish_reason")
