"""SQL for people, read-only: no statement that changes anything, no file but the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from r2v_core.errors import R2VError
from r2v_core.registry.database import is_damage, read, reason

if TYPE_CHECKING:
    import pandas as pd

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def run_sql(path: Path, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The answer to one SELECT (or WITH, FROM, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) as a data frame.

    Args:
        path: the registry file.
        query: one statement; values are written ``?`` or ``$name``.
        params: their values, in order or by name.

    Raises:
        R2VError: for bad SQL, more than one statement, or one that would write or read other files.
    """
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise R2VError(f"bad SQL: {reason(error)}") from error
    if len(statements) != 1:
        raise R2VError(f"write one SQL statement, not {len(statements)}")
    if statements[0].type not in _READING:
        kind = statements[0].type.name
        raise R2VError(f"the registry is read-only here: {kind} is refused; it changes through its runs alone")
    engine = duckdb.connect()
    try:
        with read(path, engine=engine) as con:
            con.execute(
                "SET enable_external_access = false; SET python_enable_replacements = false; "
                "SET lock_configuration = true"
            )
            try:
                return con.execute(statements[0], params).df()
            except duckdb.PermissionException as error:
                raise R2VError(
                    f"the registry is read-only here: other files are out of reach ({reason(error)})"
                ) from error
            except duckdb.Error as error:
                if is_damage(error):
                    raise
                raise R2VError(f"bad SQL: {reason(error)}") from error
    finally:
        engine.close()
