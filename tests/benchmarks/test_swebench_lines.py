"""Edits leave every byte alone that they do not mean."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from r2v_core.benchmarks.swebench.lines import decoded, lines_of, places, replaced, shown


def edit(data: bytes, old: list[str], new: list[str]) -> bytes:
    text = decoded(data)
    assert text is not None
    (at,) = places(lines_of(shown(text)), old)
    return replaced(text, at, old, new).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("data", "old", "new", "wanted"),
    [
        (b"a\r\nb\nc\r\n", ["b"], ["B"], b"a\r\nB\nc\r\n"),
        (b"a\r\nb\r\nc", ["b"], ["b", "x"], b"a\r\nb\r\nx\r\nc"),
        (b"a\nb", ["b"], ["B"], b"a\nB"),
        (b"a\nb", ["b"], ["b", "c"], b"a\nb\nc"),
        (b"a\nb", ["a", "b"], ["a"], b"a"),
        (b"a\nb", ["a"], ["A"], b"A\nb"),
        (b"a", ["a"], [], b""),
        (b"a\nb\n", ["a", "b"], ["b"], b"b\n"),
        (b"\xef\xbb\xbfa\nb\n", ["a"], ["A"], b"\xef\xbb\xbfA\nb\n"),
        (b"\xef\xbb\xbfa\nb\n", ["b"], ["B"], b"\xef\xbb\xbfa\nB\n"),
        (b"# caf\xe9\nb\n", ["b"], ["B"], b"# caf\xe9\nB\n"),
        (b"# caf\xe9\nb\n", ["# caf\ufffd", "b"], ["# caf\ufffd", "B"], b"# caf\xe9\nB\n"),
        (b"\tx  \n\ty\n", ["\tx", "\ty"], ["\tx", "\tz"], b"\tx  \n\tz\n"),
        (b"a\n\n\nb\n", ["b"], ["c"], b"a\n\n\nc\n"),
        (b"a\x0cb\x85\n\xe2\x80\xa8c\nd\n", ["d"], ["e"], b"a\x0cb\x85\n\xe2\x80\xa8c\ne\n"),
    ],
)
def test_by_hand(data: bytes, old: list[str], new: list[str], wanted: bytes) -> None:
    assert edit(data, old, new) == wanted


def test_a_binary_file_is_no_text() -> None:
    assert decoded(b"a\0b") is None and decoded(b"") == ""


ENDS = st.sampled_from([b"\n", b"\r\n"])
WORDS = st.binary(max_size=6).filter(lambda raw: not set(raw) & set(b"\0\n\r"))
FILES = st.lists(st.tuples(WORDS, ENDS), min_size=1, max_size=8)


@given(FILES, st.booleans(), st.booleans(), st.data())
def test_lines_outside_of_an_edit_stay_byte_for_byte(
    lines: list[tuple[bytes, bytes]], bom: bool, last_open: bool, data: st.DataObject
) -> None:
    whole = [word + end for word, end in lines]
    if last_open:
        whole[-1] = lines[-1][0]
        assume(whole[-1])
    content = (b"\xef\xbb\xbf" if bom else b"") + b"".join(whole)
    assume(bom or not content.startswith(b"\xef\xbb\xbf"))
    text = decoded(content)
    assert text is not None
    seen = lines_of(shown(text))
    first = data.draw(st.integers(0, len(seen) - 1))
    last = data.draw(st.integers(first + 1, len(seen)))
    same = replaced(text, first, seen[first:last], seen[first:last]).encode("utf-8", "surrogateescape")
    assert same == content
    made = replaced(text, first, seen[first:last], ["new"]).encode("utf-8", "surrogateescape")
    before = (b"\xef\xbb\xbf" if bom else b"") + b"".join(whole[:first])
    assert made.startswith(before) and made.endswith(b"".join(whole[last:]))
    assert b"new" in made or b"new" in b"".join(whole[first:last])
    assert made.endswith(b"\n") == content.endswith(b"\n")
