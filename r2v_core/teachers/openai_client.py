"""Chats through the OpenAI SDK: OpenAI itself, and every server that speaks its protocol.

Google and DeepSeek document such an interface of their own, and vLLM, SGLang, llama.cpp and ``transformers serve``
offer it, so one client serves all of them.
"""

from __future__ import annotations

import time

from r2v_core.teachers.chat import Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.endpoints import Endpoint, Transient, import_sdk, translated
from r2v_core.teachers.options import OpenAIOptions


class OpenAIClient:
    """One request at a time from any number of threads; never repeats one by itself."""

    def __init__(self, where: Endpoint, options: OpenAIOptions, timeout_s: float) -> None:
        self.where = where
        self.sdk = import_sdk("openai")
        limit = "max_completion_tokens" if where.provider == "openai" else "max_tokens"
        self.parameters: dict[str, float] = {limit: options.max_tokens}
        if options.temperature is not None:
            self.parameters["temperature"] = options.temperature
        self.client = self.sdk.OpenAI(api_key=where.key, base_url=where.base_url, timeout=timeout_s, max_retries=0)

    def ask(self, talk: list[Message]) -> Reply:
        """The model's reply to a chat.

        Raises:
            Transient: if asking again may help.
            R2VError: if it won't.
        """
        began = time.perf_counter()
        with translated(self.sdk, self.where):
            answer = self.client.chat.completions.create(model=self.where.model, messages=talk, **self.parameters)
        if not isinstance(getattr(answer, "choices", None), list):
            raise Transient("the answer has no list of choices")
        choice = answer.choices[0] if answer.choices else None
        message = getattr(choice, "message", None)
        text = self.where.redacted(getattr(message, "content", None) or "")
        usage = answer.usage
        return Reply(
            text=text,
            tokens_in=usage.prompt_tokens if usage else highest_tokens(talk),
            tokens_out=usage.completion_tokens if usage else len(text.encode()),
            latency_s=round(time.perf_counter() - began, 4),
            cut=getattr(choice, "finish_reason", None) == "length",
        )


def highest_tokens(talk: list[Message]) -> int:
    """More tokens than a chat can have: one a byte, and some for the frame of each message."""
    return sum(len(message["content"].encode()) + 16 for message in talk)
