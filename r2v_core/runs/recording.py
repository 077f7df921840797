"""The loop of every stage that writes records: chunk by chunk, resumable, shared by several processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from r2v_core.runs import processes
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.reporting import Reporter

T = TypeVar("T", bound=BaseModel)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Chunk(Generic[K, T]):
    """Records that are made together; what comes out depends on no other chunk.

    ``make`` yields the records in any order. It is given the keys of those that an interrupted attempt has left on
    disk: what it yields for these is not written again, and it may leave them out if the others do not depend on them.
    """

    keys: tuple[K, ...]
    make: Callable[[Collection[K]], Iterable[T]]


@dataclass
class Records(Generic[K, T]):
    """A file of records: what it holds, how a record is known again, and what is said of progress."""

    path: Path
    model: type[T]
    key: Callable[[T], K]
    report: Reporter
    what: str
    """What the records are called in progress lines, e.g. ``episodes``."""
    facts: Callable[[], dict[str, Any]] = dict
    """What else progress lines tell."""
    on_record: Callable[[T, bool], None] = lambda record, new: None
    """Called with every record of this process: those on disk first (False), then each new one (True)."""
    same: Callable[[T, T], bool] = lambda before, after: True
    """Whether a record that was made again is the one on disk."""
    last: bool = True
    """Whether helper processes end with these records; else all processes go on together, knowing all of them."""

    def complete(self, chunks: Sequence[Chunk[K, T]]) -> dict[K, T]:
        """Make what is not on disk yet, appending each record as it is made; return all by key.

        A record is on disk whole or not at all, and never twice. A chunk that lacks records is made anew from its
        beginning. Of several processes that run the stage, or of its shards, each takes every n-th chunk.

        Raises:
            PartDone: in helper processes, once every process has made its part, if these records are the last; in a
                shard once it has made its own, for what follows may depend on all of them.
        """
        first, every = processes.part()
        own, sharded = list(chunks)[first::every], processes.shard() is not None
        wanted = {key for chunk in (own if sharded else chunks) for key in chunk.keys}
        done = self._on_disk(wanted)
        if done:
            missing = len(wanted) - len(done)
            self.report.log(f"{len(done)} of {len(wanted)} {self.what} are on disk already; {missing} to go")
        total = len(done) + sum(key not in done for chunk in own for key in chunk.keys)
        for record in done.values():
            self.on_record(record, False)
        with JsonlStore(processes.rank_file(self.path), self.model) as store:
            for chunk in own:
                if all(key in done for key in chunk.keys):
                    continue
                left = {key: done[key] for key in chunk.keys if key in done}
                for record in chunk.make(left.keys()):
                    key = self.key(record)
                    if key in left:
                        self._compare(key, left[key], record)
                        continue
                    store.append(record)
                    done[key] = record
                    self.on_record(record, True)
                    self.report.progress(self.what, len(done), total, **self.facts())
        if sharded:
            self.report.at(self.what, len(done), total)
            raise processes.PartDone
        if processes.count() > 1:
            if self.last:
                processes.gather(self.path, self.model, self.key)
                done = {self.key(record): record for record in JsonlStore(self.path, self.model)}
            else:
                processes.wait_for_all()
                done = self._on_disk(wanted)
        return done

    def _on_disk(self, wanted: Collection[K]) -> dict[K, T]:
        """The wanted records that are on disk, those of an earlier attempt's helper processes and of shards too."""
        store = JsonlStore(self.path, self.model)
        if processes.is_main():
            processes.merge_rank_files(self.path, self.model, self.key)
            store.recover()
        processes.wait_for_all()
        done = {self.key(record): record for record in store if self.key(record) in wanted}
        for problem in store.problems:
            self.report.log(f"warning: {problem}; the record is made again")
        for path in processes.rank_files(self.path) if processes.shard() else []:  # others may be writing theirs
            done |= {self.key(record): record for record in JsonlStore(path, self.model) if self.key(record) in wanted}
        processes.wait_for_all()  # nobody appends while another still reads
        return done

    def _compare(self, key: K, before: T, after: T) -> None:
        if not self.same(before, after):
            self.report.log(
                f"warning: {key}, made again to complete its chunk, came out differently (the one on disk is kept): "
                "the environment or the teacher does not repeat itself, so a resumed run may differ from an "
                "uninterrupted one"
            )
