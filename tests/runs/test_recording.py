"""Records made chunk by chunk: each on disk once, a chunk that lacks some made again from its beginning."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.recording import Chunk, Records
from r2v_core.runs.reporting import Reporter


class Row(BaseModel):
    name: str
    value: int = 0


class Heard(Reporter):
    def __init__(self) -> None:
        super().__init__("test")
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


def records(path: Path, report: Reporter) -> Records[str, Row]:
    return Records(path, Row, key=lambda row: row.name, report=report, what="rows", same=lambda a, b: a == b)


def chunk(made: list[str], *names: str, die_at: str = "", value: int = 0) -> Chunk[str, Row]:
    def make(known: Collection[str]) -> Iterator[Row]:
        for name in names:
            if name == die_at:
                raise KeyboardInterrupt
            made.append(name)
            yield Row(name=name, value=value)

    return Chunk(names, make)


def test_an_unfinished_chunk_is_made_again_and_a_finished_one_is_not(tmp_path: Path) -> None:
    path, made, report = tmp_path / "rows.jsonl", [], Heard()
    with pytest.raises(KeyboardInterrupt):
        records(path, report).complete([chunk(made, "a", "b"), chunk(made, "c", "d", die_at="d")])
    assert made == ["a", "b", "c"]
    made.clear()
    done = records(path, report).complete([chunk(made, "a", "b"), chunk(made, "c", "d")])
    assert made == ["c", "d"] and list(done) == ["a", "b", "c", "d"]
    assert [row.name for row in JsonlStore(path, Row)] == ["a", "b", "c", "d"]
    assert "3 of 4 rows are on disk already; 1 to go" in report.lines
    assert not any("another way" in line for line in report.lines)


def test_a_record_that_comes_out_another_way_is_kept_as_it_is_and_said(tmp_path: Path) -> None:
    path, report = tmp_path / "rows.jsonl", Heard()
    with pytest.raises(KeyboardInterrupt):
        records(path, report).complete([chunk([], "a", "b", die_at="b")])
    done = records(path, report).complete([chunk([], "a", "b", value=1)])
    assert done["a"].value == 0 and done["b"].value == 1
    assert sum("a, made again to complete its chunk, came out differently" in line for line in report.lines) == 1
