"""All that is printed for people: lines, tables and JSON that a terminal shows and does not obey.

Notes, tags, goals, observations, ids and other programs' output may hold whatever somebody put there. So nothing else
in the project prints: commands say lines with :func:`say`, and draw with the console of :func:`rich_console`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The option ``--json`` of every command that prints a table."""


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey rather than show, what turns the reading direction, and halves of characters."""


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: control characters, but tabs and newlines, written as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def say(*lines: object, error: bool = False, end: str = "\n") -> None:
    """Print lines of text; with ``error`` on standard error."""
    if lines:
        print(
            *[printable(str(line)) for line in lines],
            sep="\n",
            end=end,
            file=sys.stderr if error else None,
            flush=error,
        )


def rich_console(**options: Any) -> Console:
    """A console of rich's, in which no text's control characters reach the terminal; its own markup does."""
    from rich.console import Console

    class Shown(Console):
        def render_str(self, text: str, **more: Any) -> Text:
            return super().render_str(printable(text), **more)

    return Shown(**{"highlight": False, **options})


def print_json(value: Any) -> None:
    """JSON, with NaN and infinities as null."""
    text = json.dumps(_finite(value), ensure_ascii=False, indent=2, default=str)
    print(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shorten(text: str, width: int) -> str:
    """``text`` in one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Rows as a table on standard output."""
    if text := table_text(rows, columns):
        print(text)


def table_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as a table. On a terminal it fits the window; into a pipe it is as wide as its contents."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names = list(columns if columns is not None else rows[0] if rows else [])
    if not names:
        return ""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        numeric = all(isinstance(row[name], (int, float)) or row[name] is None for row in rows) and bool(rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[_cell(row[name]) for name in names])
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else 100_000
    console = Console(file=io.StringIO(), markup=False, highlight=False, emoji=False, width=width)
    console.print(table)
    return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return printable(", ".join(str(item) for item in value))
    return printable(shorten(str(value), 300))
