"""What models said in a scope: what an interrupted play left is used batch by batch, never piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.runs.memory import Memory, Scope


@dataclass(frozen=True)
class Said:
    """As a model would say it: what comes out depends on who else is in the batch."""

    key: str
    together: tuple[str, ...]


class Killed(BaseException):
    pass


def play(rounds: Sequence[Sequence[str]], size: int, scope: Scope, die_after: int | None = None) -> tuple[dict, int]:
    """Ask for what is not known, round by round, in batches; returns what is known at the end, and batches computed."""
    memory = scope.memory("said", Said)
    computed = 0
    for keys in rounds:
        missing = sorted({key for key in keys if key not in memory})
        for start in range(0, len(missing), size):
            if die_after is not None and computed == die_after:
                raise Killed
            batch = missing[start : start + size]
            computed += memory.add(batch, lambda batch=batch: [Said(key, tuple(batch)) for key in batch])
    return {key: memory[key] for keys in rounds for key in keys}, computed


ROUNDS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=6)


@given(ROUNDS, ROUNDS, st.integers(1, 3), st.lists(st.integers(0, 4), max_size=4))
def test_killed_plays_end_as_one_that_ran_through(
    tmp_path_factory: pytest.TempPathFactory, first: list, second: list, size: int, deaths: list[int]
) -> None:
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    expected = [play(rounds, size, Scope(whole, "s", str(n)))[0] for n, rounds in enumerate((first, second))]
    found = []
    for n, rounds in enumerate((first, second)):
        for die_after in deaths:
            with suppress(Killed):
                play(rounds, size, Scope(broken, "s", str(n)), die_after)
        found.append(play(rounds, size, Scope(broken, "s", str(n)))[0])
    assert found == expected


def test_nothing_is_computed_twice_and_other_scopes_know_nothing(tmp_path: Path) -> None:
    rounds = [["a", "b"], ["b", "c", "d"]]
    with pytest.raises(Killed):
        play(rounds, 1, Scope(tmp_path, "s", "play"), die_after=3)
    assert play(rounds, 1, Scope(tmp_path, "s", "play"))[1] == 1
    assert play(rounds, 1, Scope(tmp_path, "s", "another method"))[1] == 0
    assert play(rounds, 1, Scope(tmp_path, "other worlds", "play"))[1] == 4


def test_a_batch_of_which_a_part_is_left_is_computed_whole(tmp_path: Path) -> None:
    scope = Scope(tmp_path, "s", "play")
    scope.memory("said", Said).add(["a"], lambda: [Said("a", ("a",))])
    memory = scope.memory("said", Said)
    assert "a" not in memory  # it was said in this play: known when it is asked for again
    assert memory.add(["a", "b"], lambda: [Said("a", ("a", "b")), Said("b", ("a", "b"))])
    assert memory["a"].together == ("a", "b")


def test_without_a_file_it_is_forgotten(tmp_path: Path) -> None:
    memory: Memory[Said] = Memory(Said)
    assert memory.add(["a"], lambda: [Said("a", ("a",))]) and "a" in memory
    assert not list(tmp_path.iterdir())
