"""Creating the registry's schema, checking a file's version, and carrying older files forward."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import duckdb

from r2v_core.errors import R2VError

VERSION = 3
"""Raise it with every change to ``schema.sql``; older files are then migrated when they are next opened.

Columns added to a table are nullable or have a DEFAULT, since older rows lack them."""

TABLES = ("runs", "episodes", "artifacts", "lineage", "metrics", "evaluations", "slurm_jobs")
"""Every table that holds rows of runs; each has a column ``run_id``."""


@cache
def _sql() -> str:
    return files("r2v_core.registry").joinpath("schema.sql").read_text(encoding="utf-8")


def relations() -> list[str]:
    """The names of all tables and views."""
    return re.findall(r"^CREATE (?:TABLE|VIEW) (\w+)", _sql(), re.MULTILINE)


def create(con: duckdb.DuckDBPyConnection) -> None:
    """Make all tables and views in the connection's present database."""
    con.execute(_sql())
    comments = con.execute(
        "SELECT column_name, comment FROM duckdb_columns() "
        "WHERE database_name = current_database() AND table_name = 'runs'"
    ).fetchall()
    for name, comment in comments:  # a view that repeats a table's columns repeats what is said about them
        con.execute(f"COMMENT ON COLUMN latest_runs.{name} IS '{comment.replace(chr(39), chr(39) * 2)}'")
    con.execute("INSERT INTO schema_info VALUES (?)", [VERSION])
    update_totals(con)


def update_totals(con: duckdb.DuckDBPyConnection) -> None:
    """Count again what the table ``totals`` holds; part of every transaction."""
    con.execute(
        "DELETE FROM totals; INSERT INTO totals SELECT (SELECT count(*) FROM runs), count(*), "
        "count(DISTINCT action_hash) FROM episodes"
    )


def check(con: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The schema version of an open registry file.

    Raises:
        R2VError: if the file was written by a newer program.
        duckdb.Error: if it is no registry at all.
    """
    versions = [row[0] for row in con.execute("FROM schema_info").fetchall()]  # quicker than an aggregate
    if not versions:
        raise duckdb.CatalogException("no schema version in it")
    version = max(versions)
    if version > VERSION:
        raise R2VError(
            f"{path}: schema version {version} is newer than this program's ({VERSION}); update r2v, or recreate the "
            "registry for this version from the runs on disk: r2v registry rebuild"
        )
    return int(version)


def migrated(file: Path, version: int) -> duckdb.DuckDBPyConnection:
    """Carry an older registry file forward in place and return a connection to it.

    Rows move to a new schema by table and column name. Columns the old file lacks are left empty, and all runs then
    count as outdated, so that the next ``sync`` (Dagster's sensor, planning of a merge, ``r2v registry sync``) fills
    them from the runs' files.
    """
    old = file.with_name(f"{file.name}.v{version}.tmp")
    file.rename(old)
    con = duckdb.connect(str(file))
    create(con)
    con.execute(f"ATTACH '{str(old).replace(chr(39), chr(39) * 2)}' AS old (READ_ONLY)")
    columns = _columns(con, con.execute("SELECT current_database()").fetchall()[0][0])
    before = _columns(con, "old")
    for table in TABLES:
        shared = [f'"{name}"' for name in columns[table] if name in before.get(table, [])]
        if shared:
            names = ", ".join(shared)
            con.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM old.{table}")
    con.execute("DETACH old")
    if any(set(columns[table]) - set(before.get(table, [])) for table in TABLES):
        con.execute("UPDATE runs SET manifest_digest = ''")
    return con


def _columns(con: duckdb.DuckDBPyConnection, database: str) -> dict[str, list[str]]:
    rows = con.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() "
        "WHERE database_name = ? GROUP BY table_name",
        [database],
    ).fetchall()
    return dict(rows)
