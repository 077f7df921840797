"""What a model's API answered, read with care: whatever came with status 200 may have been paid for.

An answer that is JSON of the protocol's form is a reply and is booked, however odd its parts are. Content that is no
text reads as an empty reply, which is asked about once more like any malformed one. Token counts that can't be true are
replaced by the most that the call can have taken. What was odd is the reply's ``note``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from r2v_core.teachers.chat import Reply
from r2v_core.teachers.conversation import Message
from r2v_core.teachers.endpoints import Endpoint, Transient

LARGEST_BODY = 32 << 20
"""Bytes of a response that are read; no reply to an agent is nearly as long."""
LONGEST_TEXT = 200_000
"""Characters of a reply that are kept; it counts as cut off there."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_LONGEST_NUMBER = 300
_BEYOND = 10
"""A count is believed up to so many times what we would expect at most, as servers add prompts and reasoning of their
own, and :data:`_OWN` tokens besides."""
_OWN = 100_000

Parts = tuple[Any, Any, Any, Any]
"""Content, tokens in, tokens out, why it ended, in the protocol's word."""
_CUT = ("length", "max_tokens")
_WITHHELD = ("content_filter", "refusal")


class Unreadable(Exception):
    """An answer that may have been paid for and can't be read."""


def read_reply(
    where: Endpoint,
    content: bytes,
    parts_of: Callable[[dict[str, Any]], Parts],
    messages: list[Message],
    max_tokens: int,
    latency_s: float,
) -> Reply:
    """The reply in a response's body.

    Args:
        parts_of: takes apart an answer in the protocol's form; raises Transient for what is in another.

    Raises:
        Transient: if the body is no answer of a model at all, so that asking again may help.
    """
    notes: list[str] = []
    text, counted_in, counted_out, ended = "", None, None, None
    try:
        said, counted_in, counted_out, ended = parts_of(parsed(content))
        text = text_of(said)
    except Unreadable as error:
        notes.append(str(error))
    cut, withheld = ended in _CUT, ended in _WITHHELD
    if len(text) > LONGEST_TEXT:
        text, cut = text[:LONGEST_TEXT], True
        notes.append(f"a reply of more than {LONGEST_TEXT} characters was cut there")
    tokens_in, tokens_out = believed(counted_in, highest_tokens(messages)), believed(counted_out, max_tokens)
    if tokens_in is None or tokens_out is None:
        wrong = counted_in if tokens_in is None else counted_out
        notes.append(f"the reply's token count can't be {repr(wrong)[:40]}: the largest possible count is charged")
    return Reply(
        text="" if withheld else where.redacted(text),
        tokens_in=highest_tokens(messages) if tokens_in is None else tokens_in,
        tokens_out=max_tokens if tokens_out is None else tokens_out,
        latency_s=latency_s,
        cut=cut,
        refused=f"{where} refuses: the reply was withheld ({ended})" if withheld else "",
        note=where.redacted("; ".join(notes)),
    )


def parsed(content: bytes) -> dict[str, Any]:
    """A body's JSON object.

    Raises:
        Transient: if it is none, as where a proxy answers.
        Unreadable: if it is too large or too deep to be read.
    """
    if len(content) > LARGEST_BODY:
        raise Unreadable(f"the answer is larger than {LARGEST_BODY >> 20} MiB")
    try:
        answer = json.loads(content.decode("utf-8-sig", "replace"), parse_int=_number)
    except RecursionError:
        raise Unreadable("the answer is nested too deeply to be read") from None
    except ValueError as error:
        raise Transient(f"the answer is not what the API promises ({type(error).__name__})") from None
    if not isinstance(answer, dict):
        raise Transient("the answer is not what the API promises (no JSON object)")
    return answer


def _number(digits: str) -> float:
    return int(digits) if len(digits) < _LONGEST_NUMBER else math.inf


def text_of(said: Any) -> str:
    """The text of a message's content: a text, nothing, or a list of parts, of which those with text count.

    Raises:
        Unreadable: for anything else.
    """
    if said is None:
        return ""
    if isinstance(said, dict):
        said = [said]
    if isinstance(said, list):
        texts = [one if isinstance(one, str) else _part(one) for one in said]
        if said and not any(isinstance(text, str) for text in texts):
            raise Unreadable("the reply's content has no part with text")
        said = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(said, str):
        raise Unreadable(f"the reply's content is {repr(said)[:40]}, not text")
    return _SURROGATES.sub("\ufffd", said)


def _part(one: Any) -> Any:
    """A part's text; parts of reasoning, of tools and of pictures have none that counts."""
    if isinstance(one, dict) and one.get("type", "text") in ("text", "output_text"):
        return one.get("text")
    return None


def believed(given: Any, expected: int) -> int | None:
    """A token count as a number, if it can be one; None if not.

    Args:
        expected: what we would expect at most.
    """
    if isinstance(given, str) and given.isdecimal() and len(given) < _LONGEST_NUMBER:
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    if not 0 <= given <= _BEYOND * expected + _OWN or given != int(given):
        return None
    return int(given)


def fields(value: Any) -> dict[str, Any]:
    """A JSON object's fields; none of what is no object."""
    return value if isinstance(value, dict) else {}


def highest_tokens(messages: list[Message]) -> int:
    """More tokens than a chat can have: one a byte, and some for the frame of each message."""
    return sum(len(message["content"].encode(errors="surrogatepass")) + 16 for message in messages)
