"""SQL for people, read-only: no statement that changes anything, no file but the registry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from r2v_core.errors import R2VError, nearest
from r2v_core.registry.database import read_closed, reason
from r2v_core.registry.schema import relations

if TYPE_CHECKING:
    import pandas as pd

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)

TIMEOUT_S = 60.0
"""How long a question may take, seconds."""


def run_sql(
    path: Path, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
) -> pd.DataFrame:
    """The answer to one SELECT (or WITH, FROM, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) as a data frame.

    Args:
        path: the registry file.
        query: one statement; values are written ``?`` or ``$name``.
        params: their values, in order or by name.
        timeout_s: how long it may take, seconds; 0: for ever.

    Raises:
        R2VError: for bad SQL, more than one statement, one that would write or read other files, or takes too long.
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
    try:
        with read_closed(path, timeout_s) as con:
            return con.execute(statements[0], params).df()
    except duckdb.InterruptException:
        raise R2VError(f"stopped after {timeout_s:g} s; narrow the question, or give it longer: --timeout") from None
    except duckdb.PermissionException as error:
        raise R2VError(f"the registry is read-only here: other files are out of reach ({reason(error)})") from error
    except duckdb.Error as error:
        raise R2VError(f"bad SQL: {reason(error)}{_hint(error)}") from error


def _hint(error: duckdb.Error) -> str:
    """What could have been meant: DuckDB names columns in further lines, and only the nearest table."""
    if table := re.search(r"Table with name (\S+) does not exist", str(error)):
        return nearest(table[1], relations())
    further = [line.strip() for line in str(error).splitlines()[1:]]
    said = [line for line in further if line.startswith(("Candidate", "Did you mean"))]
    return f" {said[0]}" if said else ""
