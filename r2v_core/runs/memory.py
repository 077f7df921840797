"""What models said for one scope of a run, remembered there and nowhere else, and kept on disk until the run is done.

The last bits of what a model says depend on the batch that it was computed in. So that a stage's result depends neither
on what was played before it in the same process nor on where it was killed, a chunk of jobs has a scope of its own:
what was computed is appended to the scope's file batch by batch, and an interrupted chunk is played again from its
beginning, with every batch that is on disk taken from there and every other one formed as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

from r2v_core.runs.jsonl import JsonlStore

FOLDER = "unfinished"
"""In a run's directory while the run is not done."""
V = TypeVar("V")


class Batch(BaseModel):
    """Values that were computed together."""

    play: str
    keys: list[str]
    values: list[Any]


class Memory(Generic[V]):
    """Values of one type by key; with a file, also those that earlier plays in its scope left there.

    Args:
        value: the type; anything that pydantic can write as JSON and read back equal.
        path: where batches are kept; None: in this object only.
        play: names what is being played. Batches of other plays are known from the start, batches of this one are what
            an interrupted attempt has left.
    """

    def __init__(self, value: type[V], path: Path | None = None, play: str = "") -> None:
        self._adapter = TypeAdapter(value)
        self._store = JsonlStore(path, Batch) if path else None
        self._play = play
        self._known: dict[str, V] = {}
        self._left: dict[str, V] = {}
        for batch in self._store or ():
            found = self._left if batch.play == play else self._known
            found.update(zip(batch.keys, map(self._adapter.validate_python, batch.values), strict=True))

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> V:
        return self._known[key]

    def add(self, keys: Sequence[str], compute: Callable[[], Sequence[V]]) -> bool:
        """Remember the values of a batch of new keys; returns whether they had to be computed."""
        if not keys:
            return False
        if all(key in self._left for key in keys):
            self._known.update((key, self._left[key]) for key in keys)
            return False
        values = compute()
        self._known.update(zip(keys, values, strict=True))
        if self._store:
            dumped = [self._adapter.dump_python(value, mode="json") for value in values]
            self._store.append(Batch(play=self._play, keys=list(keys), values=dumped))
            self._store.close()
        return True


@dataclass(frozen=True)
class Scope:
    """Which jobs share what models say, and what is being played of them."""

    folder: Path
    name: str
    play: str

    def memory(self, kind: str, value: type[V]) -> Memory[V]:
        """What models of one kind (the proposer, a teacher) have said in this scope so far."""
        return Memory(value, self.folder / f"{self.name}.{kind}.jsonl", self.play)
