"""How long a server asks to wait: in an error's headers, in its JSON, or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

SEARCHED = 20_000
"""Characters of an error in which a delay is looked for."""
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PIECE = rf"({_NUMBER}) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_SPOKEN = re.compile(
    r"(?:\"retryDelay\"\s*:\s*\"|(?:try again|retry|wait|resets?|available)(?: again)?(?: in| after| for|:)?"
    rf"(?: about| at least| another)? )((?:{_PIECE}[ ,]*(?:and )?)+)",
    re.IGNORECASE,
)
_FIELD = re.compile(rf'"retry_?after(_?ms|_?s|_?sec|_?seconds)?"\s*:\s*"?({_NUMBER})"?\s*[,}}\]]', re.IGNORECASE)


def delay_of(headers: Mapping[str, str], body: str) -> float | None:
    """Seconds that an error asks to wait, the longest where it says so in several places; None if it does not."""
    found = (_in_headers(headers), delay_in(body))
    return max((delay for delay in found if delay is not None), default=None)


def delay_in(body: str) -> float | None:
    """Seconds that an error's text asks to wait: Google's ``"retryDelay": "34s"``, "Please try again in 1m2.5s",
    ``"retry_after": 34``.
    """
    body = body[:SEARCHED]
    if found := _FIELD.search(body):
        return float(found[2]) * (0.001 if "ms" in (found[1] or "").lower() else 1.0)
    if found := _SPOKEN.search(body):
        pieces = re.findall(_PIECE, found[1], re.IGNORECASE)
        return sum(float(count) * _seconds(unit.lower()) for count, unit in pieces)
    return None


def _seconds(unit: str) -> float:
    return _UNITS["ms" if unit.startswith("milli") else unit if unit == "ms" else unit[0]]


def _in_headers(headers: Mapping[str, str]) -> float | None:
    """``retry-after-ms``, or ``Retry-After`` as a number or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if re.fullmatch(_NUMBER, value.strip()):
            return float(value) * unit
    try:
        wanted = parsedate_to_datetime(headers.get("retry-after", ""))
        return max((wanted - datetime.now(timezone.utc)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None
