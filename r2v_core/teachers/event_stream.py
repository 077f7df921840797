"""A reply that came in pieces (server-sent events), put together to the answer that it would have been in one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from r2v_core.teachers.endpoints import Transient

BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b": ", b":\n", b":\r")
"""How a stream begins; JSON begins with none of these."""


def is_stream(content: bytes) -> bool:
    """Whether a body is a stream of events."""
    return content[:100].lstrip(b"\xef\xbb\xbf \r\n").startswith(BEGINNINGS)


def whole(content: bytes, redacted: Callable[[str], str]) -> bytes:
    """The events of OpenAI's protocol as one ``chat.completion``, JSON.

    Args:
        redacted: a text from outside without the key, should it be repeated there.

    Raises:
        Transient: if the stream broke off, or an error came in it.
    """
    said: list[Any] = []
    ended: Any = None
    usage: Any = None
    for line in re.split(r"\r\n|\n|\r", content.decode("utf-8-sig", "replace")):
        name, _, data = line.partition(":")
        if name != "data" or data.strip() == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise Transient("an event of the streamed answer is not JSON") from None
        event = event if isinstance(event, dict) else {}
        if event.get("error"):
            raise Transient(f"an error came in the streamed answer ({redacted(json.dumps(event['error']))[:300]})")
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            if isinstance(choice, dict) and not choice.get("index"):
                part = choice.get("delta") or choice.get("message")
                said.append(part.get("content") if isinstance(part, dict) else None)
                ended = choice.get("finish_reason") or ended
    if ended is None:
        raise Transient("the streamed answer broke off")
    pieces = [piece for piece in said if piece is not None]
    text: Any = "".join(pieces) if all(isinstance(piece, str) for piece in pieces) else _flat(pieces)
    choice = {"index": 0, "finish_reason": ended, "message": {"role": "assistant", "content": text}}
    return json.dumps({"choices": [choice], **({"usage": usage} if usage else {})}).encode()


def _flat(pieces: list[Any]) -> list[Any]:
    """Pieces of which some are lists of parts."""
    return [part for piece in pieces for part in (piece if isinstance(piece, list) else [piece])]
