"""An edit of a file's lines that leaves every byte alone which it does not mean.

Line ends (also mixed ones), a missing end of the last line, a byte order mark, blanks at the ends of lines and bytes
that are not UTF-8 stay as they are, in the lines around an edit and in those that the edit repeats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

BOM = "\ufeff"
_LONE = re.compile("[\udc80-\udcff]")


def decoded(data: bytes) -> str | None:
    """A file's text with what is not UTF-8 as lone surrogates; None for one that is no text."""
    return None if b"\0" in data else data.decode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """A text as it can be shown: without its byte order mark, replacement characters for what is not UTF-8."""
    return _LONE.sub("\ufffd", text.removeprefix(BOM))


def lines_of(text: str) -> list[str]:
    """Lines without their ends."""
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def key(line: str) -> str:
    """What lines are compared by: what is after the last visible character does not count."""
    return line.rstrip()


def places(lines: Sequence[str], block: Sequence[str]) -> list[int]:
    """Where a block of lines begins."""
    have, want = [key(line) for line in lines], [key(line) for line in block]
    starts = [i for i, line in enumerate(have) if line == want[0]] if want else []
    return [i for i in starts if have[i : i + len(want)] == want]


def replaced(text: str, at: int, old: Sequence[str], new: Sequence[str]) -> str:
    """The text with the lines ``old``, which begin at line ``at`` (from 0), replaced by the lines ``new``."""
    mark, text = (BOM, text.removeprefix(BOM)) if text.startswith(BOM) else ("", text)
    kept = [_split(line) for line in re.findall(r"[^\n]*\n|[^\n]+\Z", text)]
    before, mine, after = kept[:at], kept[at : at + len(old)], kept[at + len(old) :]
    usual = _usual(mine) or _usual(kept) or "\n"
    made: list[tuple[str, str]] = []
    matcher = SequenceMatcher(None, [key(line) for line in old], [key(line) for line in new], autojunk=False)
    for what, i1, i2, j1, j2 in matcher.get_opcodes():
        made += mine[i1:i2] if what == "equal" else [(line, usual) for line in new[j1:j2]]
    lines = [*before, *made, *after]
    ends_open = bool(kept) and not kept[-1][1]
    whole = [(line, end or usual) for line, end in lines]
    if whole and ends_open and not after:
        whole[-1] = (whole[-1][0], "")
    elif whole and ends_open:
        whole[-1] = lines[-1]
    return mark + "".join(line + end for line, end in whole)


def _split(line: str) -> tuple[str, str]:
    """A line and its end."""
    body = line.removesuffix("\n")
    if body == line:
        return line, ""
    bare = body.removesuffix("\r")
    return bare, line[len(bare) :]


def _usual(lines: Sequence[tuple[str, str]]) -> str:
    """The most frequent end of these lines."""
    ends = [end for _, end in lines if end]
    return max(sorted(set(ends)), key=ends.count, default="")
