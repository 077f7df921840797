"""Chats through Anthropic's own SDK: Anthropic calls its OpenAI-compatible interface a means of comparison only."""

from __future__ import annotations

import time

from r2v_core.teachers.chat import Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.endpoints import Endpoint, Transient, import_sdk, translated
from r2v_core.teachers.options import ApiOptions


class AnthropicClient:
    """One request at a time from any number of threads; never repeats one by itself."""

    def __init__(self, where: Endpoint, options: ApiOptions, timeout_s: float) -> None:
        self.where = where
        self.sdk = import_sdk("anthropic")
        self.max_tokens = options.max_tokens
        self.client = self.sdk.Anthropic(api_key=where.key, base_url=where.base_url, timeout=timeout_s, max_retries=0)

    def ask(self, talk: list[Message]) -> Reply:
        """The model's reply to a chat.

        Raises:
            Transient: if asking again may help.
            R2VError: if it won't.
        """
        began = time.perf_counter()
        system, turns = talk[0]["content"], talk[1:]
        with translated(self.sdk, self.where):
            answer = self.client.messages.create(
                model=self.where.model, system=system, messages=turns, max_tokens=self.max_tokens
            )
        if not isinstance(getattr(answer, "content", None), list) or getattr(answer, "usage", None) is None:
            raise Transient("the answer has no content or no usage")
        text = "".join(block.text for block in answer.content if block.type == "text")
        return Reply(
            text=self.where.redacted(text),
            tokens_in=answer.usage.input_tokens,
            tokens_out=answer.usage.output_tokens,
            latency_s=round(time.perf_counter() - began, 4),
            cut=answer.stop_reason == "max_tokens",
        )
