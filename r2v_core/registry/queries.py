"""Reading runs out of the registry."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import duckdb

from r2v_core.console import table_text
from r2v_core.errors import R2VError
from r2v_core.migrations import upgrade
from r2v_core.registry.database import Connection, is_closed, is_damage, reason
from r2v_core.registry.values import timestamp
from r2v_core.runs.manifest import RunManifest

if TYPE_CHECKING:
    import pyarrow as pa

_TIME = "strftime({0}, '%Y-%m-%dT%H:%M:%S.%f+00:00') AS {0}"


@dataclass(frozen=True)
class RunRow:
    """What a query returns of each run; :func:`get_run` has all of it."""

    run_id: str
    stage: str
    benchmark: str
    provider: str
    model: str
    seed: int
    partition: str
    variant: str
    status: str
    created_at: str
    finished_at: str | None
    output_dir: str
    digest: str
    n_episodes: int
    n_success: int
    n_steps: int
    success_rate: float
    cost_usd: float
    wall_time_s: float
    slurm_job_id: str | None
    dagster_run_id: str | None
    tags: list[str]
    notes: str
    error: str | None


_COLUMNS = [field.name for field in fields(RunRow)]


class Runs(Sequence[RunRow]):
    """Runs in the order of their query. Rows are made when they are looked at, so that large answers are quick."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> RunRow: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> RunRow | Runs:
        if isinstance(index, slice):
            return Runs(self.table.take(list(range(*index.indices(len(self))))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return RunRow(**self.table.slice(index % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[RunRow]:
        for batch in self.table.to_batches(1000):
            yield from (RunRow(**row) for row in batch.to_pylist())

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __repr__(self) -> str:
        return f"<{len(self)} runs>"


def query(
    con: Connection,
    *,
    equal: dict[str, Any],
    tag: str | None = None,
    since: str | date | datetime | None = None,
    where: str | None = None,
) -> Runs:
    """Runs that meet every condition given, newest first.

    Args:
        con: an open registry.
        equal: column of ``runs`` → wanted value; None means any.
        tag: a tag the run must carry.
        since: earliest ``created_at``, ISO 8601 or a date; UTC where it names no zone.
        where: a SQL condition on the columns of ``runs``.

    Raises:
        R2VError: if ``since`` is no time or ``where`` is no SQL condition.
    """
    conditions = [f"{name} = ?" for name, value in equal.items() if value is not None]
    values: list[Any] = [value for value in equal.values() if value is not None]
    if tag is not None:
        conditions.append("list_contains(tags, ?)")
        values.append(tag)
    if since is not None:
        conditions.append("created_at >= ?")
        values.append(timestamp(since if isinstance(since, str) else since.isoformat(), Path("since")))
    if where is not None:
        assert is_closed(con), "a condition that people wrote is asked of a closed connection"
        check_condition(where)
        conditions.append(f"({where}\n)")
    columns = ", ".join(_TIME.format(name) if name.endswith("_at") else name for name in _COLUMNS)
    condition = " AND ".join(conditions) or "true"
    statement = f"SELECT {columns} FROM runs WHERE {condition} ORDER BY runs.created_at DESC, run_id DESC"
    try:
        return Runs(con.sql(statement, params=values).to_arrow_table())
    except duckdb.InterruptException:
        raise R2VError(f"{where}: took too long; write a simpler condition on runs") from None
    except duckdb.PermissionException as error:
        raise R2VError(f"{where}: a condition on runs reads nothing but the registry ({reason(error)})") from error
    except duckdb.Error as error:
        if where is None or is_damage(error):
            raise
        raise R2VError(f"{where}: not a condition on runs ({reason(error)})") from error


def check_condition(where: str) -> None:
    """Refuse text that is more than one SQL condition.

    Raises:
        R2VError: for an empty condition, or one that would end the statement it stands in.
    """
    forms = ("SELECT 1 FROM runs WHERE ({}\n)", "SELECT 1 FROM runs WHERE {}\n")  # with and without: none closes one
    try:
        counts = {len(duckdb.extract_statements(form.format(where))) for form in forms}
    except duckdb.Error as error:
        raise R2VError(f"{where!r}: not a SQL condition ({reason(error)})") from error
    if not where.strip() or counts != {1}:
        raise R2VError(f"{where!r}: write one SQL condition on runs, e.g. benchmark = 'textworld' AND status = 'done'")


def get_run(con: Connection, run_id: str) -> RunManifest:
    """The manifest of a run as registered.

    Raises:
        R2VError: for an unknown run, with the nearest known id.
    """
    rows = con.execute("SELECT manifest, config FROM runs WHERE run_id = ?", [run_id]).fetchall()
    if not rows:
        raise unknown_run(con, run_id)
    values = json.loads(rows[0][0]) | {"config": json.loads(rows[0][1])}
    return RunManifest.model_validate(upgrade("RunManifest", values, f"registry, run '{run_id}'"))


def unknown_run(con: Connection, run_id: str) -> R2VError:
    """The error for a run id that is not registered."""
    known = [row[0] for row in con.execute("SELECT run_id FROM runs").fetchall()]
    close = difflib.get_close_matches(run_id, known, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else "List them with: r2v registry query."
    by_hand = "A run made by hand is registered by: r2v registry sync"
    return R2VError(f"no run '{run_id}' among the {len(known)} in the registry. {hint} {by_hand}")


def require_runs(con: Connection, run_ids: Iterable[str]) -> list[str]:
    """The ids without repeats, oldest run first (``created_at``, then ``run_id``).

    Raises:
        R2VError: if there is none, or one is not registered.
    """
    if isinstance(run_ids, str):
        raise R2VError(f"run_ids is one text ('{run_ids}'); pass a list of run ids")
    wanted = list(dict.fromkeys(run_ids))
    if not wanted:
        raise R2VError("no runs given: the list of run ids, or the query they come from, is empty")
    rows = con.execute(
        "SELECT run_id FROM runs WHERE list_contains(?, run_id) ORDER BY created_at, run_id", [wanted]
    ).fetchall()
    found = [row[0] for row in rows]
    for run_id in wanted:
        if run_id not in found:
            raise unknown_run(con, run_id)
    return found


class Summary(dict[str, Any]):
    """``runs, episodes, unique_episodes, cost_usd`` and ``groups``; printed, it is a table."""

    def __str__(self) -> str:
        totals = (
            f"{self['runs']} runs, {self['episodes']} episodes ({self['unique_episodes']} unique), "
            f"${self['cost_usd']:.2f}"
        )
        return "\n".join(filter(None, [totals, table_text(self["groups"])]))


def summary(con: Connection) -> Summary:
    """Totals, and one entry a stage, benchmark, teacher and status under ``groups``."""
    totals = con.sql(
        "SELECT n_runs AS runs, n_episodes AS episodes, n_unique AS unique_episodes, "
        "(SELECT coalesce(sum(cost_usd), 0.0) FROM runs) AS cost_usd FROM totals"
    ).to_arrow_table()
    groups = con.sql(
        "SELECT stage, benchmark, provider, model, status, count(*) AS runs, sum(n_episodes)::BIGINT AS episodes, "
        "coalesce(sum(n_success) / nullif(sum(n_episodes), 0), 0.0) AS success_rate, sum(cost_usd) AS cost_usd, "
        "strftime(max(created_at), '%Y-%m-%dT%H:%M:%SZ') AS newest FROM runs GROUP BY ALL ORDER BY ALL"
    ).to_arrow_table()
    return Summary(**totals.to_pylist()[0], groups=groups.to_pylist())


def count_unique(con: Connection, run_ids: Iterable[str] | None = None) -> int:
    """Number of different action sequences, in these runs or in all.

    Raises:
        R2VError: for an empty list or an unknown run.
    """
    if run_ids is None:
        return int(con.execute("SELECT n_unique FROM totals").fetchall()[0][0])
    statement = "SELECT count(DISTINCT action_hash) FROM episodes WHERE list_contains(?, run_id)"
    return int(con.execute(statement, [require_runs(con, run_ids)]).fetchall()[0][0])


def split_conflicts(con: Connection, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Task templates that stand in different splits in different runs: merging these would train on test tasks."""
    return (
        con.sql(
            "SELECT benchmark, template_id, list_sort(list(DISTINCT split)) AS splits, "
            "list_sort(list(DISTINCT run_id)) AS run_ids FROM episodes "
            "WHERE list_contains(?, run_id) AND split IS NOT NULL "
            "GROUP BY ALL HAVING count(DISTINCT split) > 1 ORDER BY ALL",
            params=[list(run_ids)],
        )
        .to_arrow_table()
        .to_pylist()
    )
