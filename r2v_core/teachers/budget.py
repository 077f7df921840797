"""What a run may ask of a model's API, and what it has asked: kept in the run directory for when it is resumed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from r2v_core.errors import R2VError
from r2v_core.runs.manifest import write_atomic


class BudgetSpent(R2VError):
    """The run may ask no more. It ends as ``partial``; with a larger budget the same command takes it up again."""


@dataclass
class Usage:
    """What was asked of a model's API."""

    calls: int = 0
    """Requests answered; those that failed and were repeated count once."""
    cached: int = 0
    """Replies that came from the cache and cost nothing."""
    tokens_in: int = 0
    tokens_out: int = 0
    spent_usd: float = 0.0
    unpriced: int = 0
    """Calls of a model that the price table does not list: what they cost is unknown."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


USAGES = ("teacher", "judge", "answer_judge")
_SHARD = ".partshard"
"""What the names of shards' files have in them."""


def _files(run_dir: Path, usage: str) -> list[Path]:
    return sorted(run_dir.glob(f"{usage}_usage*.json"))


def read_usage(run_dir: Path, usage: str = "teacher") -> Usage:
    """What all processes of a run have asked of its teacher (or of a judge) so far.

    Raises:
        R2VError: if a file of it is damaged: without it a budget can't be kept.
    """
    return sum(map(_read, _files(run_dir, usage)), Usage())


def gather_usage(run_dir: Path) -> None:
    """Count what shards have asked as the run's own, so that new ones divide what is left; while none is at work.

    Killed in between, it counts some of it twice, never too little.
    """
    for usage in USAGES:
        shards = [path for path in _files(run_dir, usage) if _SHARD in path.name]
        if shards:
            main = run_dir / f"{usage}_usage.json"
            total = sum(map(_read, [*shards, *([main] if main.exists() else [])]), Usage())
            write_atomic(main, json.dumps(asdict(total)) + "\n")
        for path in shards:
            path.unlink()


def _read(path: Path) -> Usage:
    try:
        return Usage(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise R2VError(f"{path}: not readable ({error}); delete it to count the run's budget from zero") from None


def usage_counts(run_dir: Path) -> dict[str, float]:
    """The usage as a manifest's counts, ``teacher_calls`` and so on; nothing for one whose API was not asked."""
    return {
        f"{usage}_{name}": value
        for usage in USAGES
        if _files(run_dir, usage)
        for name, value in asdict(read_usage(run_dir, usage)).items()
    }


@dataclass
class Budget:
    """Admits calls while the budget lasts. Thread-safe; each of several processes has its share of what is left.

    A call is admitted only if its highest possible price still fits, so that the dollars are never exceeded. A shard's
    share is of what was left before any shard began, and is its own however often it is begun again.
    """

    run_dir: Path
    calls: int
    """Calls allowed to the whole run; 0: no limit."""
    usd: float
    """Dollars allowed to the whole run; 0: no limit."""
    rank: int = 0
    processes: int = 1
    role: str = "teacher"
    """The config section that its limits stand in."""
    usage: str = "teacher"
    """What the calls are counted as."""
    sharded: bool = False
    """Whether the processes are shards."""
    own: Usage = field(init=False)

    def __post_init__(self) -> None:
        part = f"{_SHARD}{self.rank}" if self.sharded else f".part{self.rank}" if self.rank else ""
        self._file = self.run_dir / f"{self.usage}_usage{part}.json"
        self.own = _read(self._file) if self._file.exists() else Usage()
        counted = (path for path in _files(self.run_dir, self.usage) if not (self.sharded and _SHARD in path.name))
        spent, used = sum(map(_read, counted), Usage()), self.own if self.sharded else Usage()
        left = max(self.calls - spent.calls, 0)
        share = left // self.processes + (self.rank < left % self.processes)
        self._calls_left = share - used.calls if self.calls else None
        self._usd_left = (self.usd - spent.spent_usd) / self.processes - used.spent_usd if self.usd else None
        self._pending = 0
        self._changed = threading.Condition()

    @contextmanager
    def call(self, highest_usd: float) -> Iterator[list[Usage]]:
        """Around one call: admits it, and afterwards books what the caller appended to the list.

        Raises:
            BudgetSpent: if the call does not fit into what is left once the calls under way are booked.
        """
        self._admit(highest_usd)
        booked: list[Usage] = []
        try:
            yield booked
        finally:
            with self._changed:
                self._pending -= 1
                if self._usd_left is not None:
                    self._usd_left += highest_usd - sum(item.spent_usd for item in booked)
                if self._calls_left is not None and not booked:
                    self._calls_left += 1
                for item in booked:
                    self._book(item)
                self._changed.notify_all()

    def book_cached(self, count: int) -> None:
        """Book replies that came from the cache."""
        if count:
            with self._changed:
                self._book(Usage(cached=count))

    def _admit(self, highest_usd: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self._fits(highest_usd))
            if not self._fits(highest_usd):
                raise BudgetSpent(self._explain(highest_usd))
            self._pending += 1
            if self._calls_left is not None:
                self._calls_left -= 1
            if self._usd_left is not None:
                self._usd_left -= highest_usd

    def _fits(self, highest_usd: float) -> bool:
        calls = self._calls_left is None or self._calls_left > 0
        return calls and (self._usd_left is None or self._usd_left >= highest_usd)

    def _explain(self, highest_usd: float) -> str:
        spent = read_usage(self.run_dir, self.usage)
        again = "raise it and run the same command again: nothing is asked twice"
        if self.sharded:
            again = f"a shard's share is 1/{self.processes}; materialise again to divide what is left, or raise it"
        if self._calls_left is not None and self._calls_left <= 0:
            return f"{self.role}.limits.budget_calls: the run's {self.calls} {self.role} calls are used up; {again}"
        return (
            f"{self.role}.limits.budget_usd: ${spent.spent_usd:.4f} of ${self.usd:g} are spent, and the next "
            f"{self.role} call may cost ${highest_usd:.4f}; {again}"
        )

    def _book(self, item: Usage) -> None:
        self.own += item
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file, json.dumps(asdict(self.own)) + "\n")
