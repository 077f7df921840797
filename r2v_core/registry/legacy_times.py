"""Times as old registries write them."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from r2v_core.errors import R2VError
from r2v_core.registry.values import timestamp

_HOURS = {
    "UTC": 0, "GMT": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
    "CET": 1, "CEST": 2,
}  # fmt: skip
_ZONE = re.compile(r"^(.*\d(?:\s*[AaPp][Mm])?)\s+([A-Za-z][A-Za-z_]+(?:/[A-Za-z_]+)*)$")
_FORMS = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M")
"""Besides ISO 8601. With AM and PM the month comes first, as where people write so."""


def parse_time(value: Any) -> datetime | None:
    """A time as naive UTC; None for what is no time.

    Understood are seconds, milliseconds and microseconds since 1970, ISO 8601, ``01/31/2025 03:04 PM``, and names of
    zones at the end. A time without a zone is taken as UTC.
    """
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        return _parse_text(text)
    if not math.isfinite(seconds):
        return None
    while abs(seconds) >= 1e11:  # the year 5138 in seconds
        seconds /= 1000
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None


def _parse_text(text: str) -> datetime | None:
    if (named := _ZONE.match(text)) and named[2].upper() not in ("AM", "PM"):
        moment, zone = _parse_text(named[1]), named[2]
        if moment is None:
            return None
        if zone.upper() in _HOURS:
            return moment - timedelta(hours=_HOURS[zone.upper()])
        try:
            return moment.replace(tzinfo=ZoneInfo(zone)).astimezone(timezone.utc).replace(tzinfo=None)
        except (KeyError, ValueError, OSError):
            return None
    for form in _FORMS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    try:
        return timestamp(text, Path("registry.json"))
    except (R2VError, ValueError, OverflowError):
        return None
