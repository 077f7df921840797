"""Merging runs: which episodes stay. Reading and copying them: :mod:`r2v_core.registry.merge_files`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r2v_core.errors import R2VError
from r2v_core.registry.database import Connection
from r2v_core.registry.queries import require_runs
from r2v_core.registry.values import relative
from r2v_core.runs.artifacts import digest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Source:
    """One run's share of a merge."""

    run_id: str
    path: Path
    """The file that holds the records."""
    lines: np.ndarray
    """Kept records: 1-based line (row of a Parquet file), ascending, int64, shape (kept,)."""
    offsets: np.ndarray | None
    """Where those lines begin, bytes, int64; None in a Parquet file."""
    lengths: np.ndarray | None
    """Their lengths without the newline, bytes, int64."""
    rows: np.ndarray
    """0-based ranks of the kept records among all of the run's records, int64: the rows of its Parquet copy."""
    n_all: int
    n_held_out: int = 0
    """Records left out because their template is held out."""
    n_left_out: int = 0
    """Records left out because they are of another split than asked for."""

    @property
    def dropped(self) -> int:
        """Records left out, mostly as duplicates."""
        return self.n_all - len(self.lines) - self.n_left_out


_RECORDS = """
SELECT rank, line, byte_offset, byte_length, action_key, hash(action_hash) AS second_key,
    {held} AS held, {copy} AS copy, {other} AS other
FROM episodes JOIN merge_order USING (run_id) ORDER BY rank, line
"""
_FILES = "SELECT rank, any_value(path) FROM episodes JOIN merge_order USING (run_id) GROUP BY rank"

_KEPT = """
SELECT coalesce(source_run_id, run_id) AS run_id, coalesce(source_episode_id, episode_id) AS episode_id
FROM episodes JOIN merge_kept USING (run_id, line)
"""


def plan(
    con: Connection,
    run_ids: Iterable[str],
    project: Path,
    deduplicate: bool = True,
    *,
    held_out: Collection[str] = (),
    copies_of: Sequence[Source] | None = None,
    splits: Collection[str] | None = None,
) -> list[Source]:
    """Decide what is kept of each run, oldest run first (``created_at``, then ``run_id``).

    Of trajectories with the same action hash the oldest run's copy is kept, within a run the first in its file.

    Args:
        con: an open registry.
        run_ids: the runs.
        project: the project root.
        deduplicate: keep one of equal action sequences.
        held_out: templates whose episodes are left out first.
        copies_of: another plan; only perturbed copies of the episodes that it keeps are kept, and all of them, since
            copies of one trajectory under different noise have the same actions and are no duplicates.
        splits: take episodes of these splits, and those that name none; None takes all.

    Raises:
        R2VError: for an empty list, an unknown run, runs without any episode, or a file that was altered.
    """
    import numpy as np
    import pyarrow as pa

    wanted = require_runs(con, run_ids)
    con.register("merge_order", pa.table({"run_id": wanted, "rank": np.arange(len(wanted))}))
    con.register("merge_kept", _kept_lines(copies_of or []))
    held = "list_contains($held_out, template_id)" if held_out else "false"
    copy = f"(source_run_id, source_episode_id) IN ({_KEPT})" if copies_of is not None else "true"
    other = "coalesce(NOT list_contains($splits, split), false)" if splits is not None else "false"
    values = {"held_out": sorted(held_out)} if held_out else {}
    values |= {"splits": list(splits)} if splits is not None else {}
    try:
        table = con.execute(_RECORDS.format(held=held, copy=copy, other=other), values or None).fetchnumpy()
        files = dict(con.execute(_FILES).fetchall())
    finally:
        con.unregister("merge_order")
        con.unregister("merge_kept")
    if not files:
        raise R2VError(f"nothing to merge: no episode in {', '.join(wanted)}; choose other runs")
    if (unknown := np.ma.getmaskarray(table["copy"])).any():
        run_id = wanted[int(table["rank"][np.flatnonzero(unknown)[0]])]
        raise R2VError(
            f"run '{run_id}': the registry does not say what its episodes are copies of; run: r2v registry sync"
        )
    other_rows = np.asarray(table["other"], bool)
    held_rows = np.asarray(table["held"], bool) & ~other_rows
    kept = ~held_rows & ~other_rows & np.asarray(table["copy"], bool)
    if deduplicate and copies_of is None:
        rows = np.flatnonzero(kept)
        kept[rows] = _first_copies(table["action_key"][rows], table["second_key"][rows])
    bounds = np.searchsorted(table["rank"], np.arange(len(wanted) + 1))
    sources = []
    for rank, run_id in enumerate(wanted):
        part = slice(bounds[rank], bounds[rank + 1])
        keep = kept[part]
        offsets = table["byte_offset"][part]
        in_parquet = bool(np.ma.getmaskarray(offsets).any())
        sources.append(
            Source(
                run_id,
                project / files.get(rank, ""),
                np.asarray(table["line"][part])[keep],
                None if in_parquet else np.asarray(offsets, dtype=np.int64)[keep],
                None if in_parquet else np.asarray(table["byte_length"][part], dtype=np.int64)[keep],
                np.flatnonzero(keep),
                len(keep),
                int(held_rows[part].sum()),
                int(other_rows[part].sum()),
            )
        )
    _verify(con, project, sources)
    return sources


def _verify(con: Connection, project: Path, sources: Iterable[Source]) -> None:
    """Refuse files that are no longer what their runs wrote; of runs that are still written nothing is known."""
    sources = [source for source in sources if len(source.lines)]
    rows = con.execute(
        "SELECT run_id, path, digest FROM artifacts WHERE list_contains(?, run_id) AND digest IS NOT NULL",
        [[source.run_id for source in sources]],
    ).fetchall()
    written = {(run_id, path): known for run_id, path, known in rows}
    for source in sources:
        known = written.get((source.run_id, relative(source.path, project)))
        if known is not None and (now := digest(source.path)) != known:
            raise R2VError(
                f"{source.path} is {'gone' if now is None else 'not what the run wrote'}; finished runs do not change: "
                "bring the file back, or materialise the run again (r2v registry doctor finds all such files)"
            )


def _kept_lines(sources: Sequence[Source]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    run_ids = [source.run_id for source in sources for _ in source.lines]
    lines = np.concatenate([np.empty(0, np.int64), *(source.lines for source in sources)])
    return pa.table({"run_id": pa.array(run_ids, pa.string()), "line": lines})


def _first_copies(key: np.ndarray, second_key: np.ndarray) -> np.ndarray:
    """Which records are the first with their action hash, bool, shape (n,).

    Hashes are compared by two 64-bit keys: the first 64 bits of their SHA-256, and DuckDB's own hash of all of it.
    """
    import numpy as np

    order = np.lexsort((second_key, key))  # stable: equal ones stay in their order
    key, second_key = key[order], second_key[order]
    first = np.r_[np.ones(min(len(key), 1), bool), (key[1:] != key[:-1]) | (second_key[1:] != second_key[:-1])]
    kept = np.zeros(len(order), bool)
    kept[order[first]] = True
    return kept
