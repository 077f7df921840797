"""Chats through Anthropic's own SDK: Anthropic calls its OpenAI-compatible interface a means of comparison only."""

from __future__ import annotations

import time
from typing import Any

from r2v_core.teachers.chat import Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.endpoints import Endpoint, Transient, import_sdk, translated
from r2v_core.teachers.options import ApiOptions
from r2v_core.teachers.replies import Parts, fields, read_reply
from r2v_core.teachers.transport import connection


class AnthropicClient:
    """One request at a time from any number of threads; never repeats one by itself."""

    def __init__(self, where: Endpoint, options: ApiOptions, timeout_s: float) -> None:
        self.where = where
        self.sdk = import_sdk("anthropic")
        self.max_tokens = options.max_tokens
        self.client = self.sdk.Anthropic(**connection(self.sdk, where, timeout_s))

    def ask(self, messages: list[Message]) -> Reply:
        """The model's reply to a chat.

        Raises:
            Transient: if asking again may help.
            R2VError: if it won't.
        """
        began = time.perf_counter()
        system, turns = messages[0]["content"], messages[1:]
        with translated(self.sdk, self.where):
            answer = self.client.messages.with_raw_response.create(
                model=self.where.model, system=system, messages=turns, max_tokens=self.max_tokens
            )
        body, latency_s = answer.http_response.content, round(time.perf_counter() - began, 4)
        return read_reply(self.where, body, _parts, messages, self.max_tokens, latency_s)


def _parts(answer: dict[str, Any]) -> Parts:
    """An answer of Anthropic's protocol, taken apart."""
    if "content" not in answer:
        raise Transient("the answer has no content")
    usage = fields(answer.get("usage"))
    return answer["content"], usage.get("input_tokens"), usage.get("output_tokens"), answer.get("stop_reason")
