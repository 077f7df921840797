"""A file of episodes, wherever it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from r2v_core.errors import R2VError
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.parquet import read_parquet
from r2v_core.trajectory import Episode


@dataclass(frozen=True)
class TrajectoryStore:
    """The episodes in a ``.jsonl`` or ``.parquet`` file, streamed in file order each time it is iterated."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def __iter__(self) -> Iterator[Episode]:
        return self.iter_episodes()

    def __len__(self) -> int:
        return self.n_episodes

    @cached_property
    def n_episodes(self) -> int:
        """Episodes in the file."""
        return sum(1 for _ in self)

    def iter_episodes(self) -> Iterator[Episode]:
        """The episodes, in file order.

        Raises:
            R2VError: if the file is missing, at a line that is no episode, or at one of a newer version.
        """
        if not self.path.is_file():
            raise R2VError(f"{self.path}: no such file of episodes")
        if self.path.suffix == ".parquet":
            return read_parquet(self.path, Episode)
        return JsonlStore(self.path, Episode).read(on_error=_refuse)


@dataclass(frozen=True)
class MergedStore(TrajectoryStore):
    """A merged file and where its episodes came from."""

    kept: dict[str, int]
    """Episodes taken from each run, oldest run first."""
    dropped: dict[str, int]
    """Duplicates left out of each run."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What was no training data, e.g. 'stage evaluate_noisy', 'split test' → episodes (see ``selection``)."""

    @cached_property
    def n_episodes(self) -> int:
        """Episodes in the file."""
        return sum(self.kept.values())


def _refuse(problem: str) -> None:
    raise R2VError(problem)
