"""Values as the registry stores them, and lines as they stand in files."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from r2v_core.errors import R2VError

BOM = b"\xef\xbb\xbf"
"""What some editors put in front of a text file."""


def relative(path: Path, project: Path) -> str:
    """``path`` as the registry stores it: below the project if it lies there, else absolute."""
    path, project = path.resolve(), project.resolve()
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.as_posix()


def to_table(rows: Iterable[dict[str, Any]], schema: pa.Schema, source: Path) -> pa.Table:
    """Rows as an Arrow table. Raises R2VError, naming the file, for a value that the registry can't hold."""
    try:
        return pa.Table.from_pylist(list(rows), schema)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
        raise R2VError(f"{source}: a value the registry can't hold ({error})") from error


def timestamp(text: str | None, source: Path) -> datetime | None:
    """An ISO 8601 time as naive UTC; a time without a zone is taken as UTC.

    Raises:
        R2VError: if it is no time, naming the file.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        raise R2VError(f"{source}: '{text}' is not a time; write ISO 8601, e.g. 2026-01-31T12:00:00+00:00") from None
    return moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment


def json_text(value: Any) -> str:
    """``value`` as strict JSON: numbers that JSON lacks (NaN, infinities) become text."""
    return json.dumps(_strict(value), ensure_ascii=False, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def lines(path: Path) -> Iterator[tuple[int, int, bytes, bool]]:
    """(1-based number, byte offset, text without its newline, whether it has one) of each line that is not blank.

    What does not exist or is no ordinary file (a FIFO would be waited for) has no lines.
    """
    if not path.is_file():
        return
    offset = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            text = line.rstrip(b"\n")
            mark = len(BOM) if number == 1 and text.startswith(BOM) else 0
            if text[mark:].strip():
                yield number, offset + mark, text[mark:], line.endswith(b"\n")
            offset += len(line)


def describe(error: ValidationError) -> str:
    """What is wrong with a record, in one line without its contents."""
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"


def as_number(value: Any) -> float | None:
    """A number as float; None for anything else."""
    return float(value) if isinstance(value, (int, float)) else None


def as_integer(value: Any) -> int | None:
    """A whole number of 64 bits, written as text too; None for anything else."""
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, (int, float)) and math.isfinite(value) and value == int(value) and abs(value) < 2**63:
        return int(value)
    return None


def as_text(value: Any) -> str | None:
    """A value as text; None stays None."""
    return None if value is None else str(value)
