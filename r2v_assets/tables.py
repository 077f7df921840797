"""Tables on an asset's page: rows and columns of the run's main table, and small tables whole."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from r2v_core.benchmarks.base import Task
from r2v_core.runs.manifest import RunManifest
from r2v_core.trajectory import Episode

if TYPE_CHECKING:
    from pydantic import BaseModel

MAIN = ("main_table", "comparisons", "features", "candidates", "episodes", "tasks")
"""Artifacts that are a run's table, the particular before the general."""
RECORDS: dict[str, type[BaseModel]] = {"episodes": Episode, "tasks": Task}
"""Artifact → the record of a row, whose fields say what the columns mean."""
SHOWN_ROWS = 60
"""Longer tables are not shown whole."""


def table_metadata(manifest: RunManifest, run_dir: Path) -> dict[str, dg.MetadataValue]:
    """``dagster/row_count``, ``dagster/column_schema`` of the main table; ``table/<name>`` for small CSV files."""
    found: dict[str, dg.MetadataValue] = {}
    name = next((name for name in MAIN if (run_dir / manifest.artifacts.get(name, "-")).is_file()), None)
    if name is not None:
        rows, columns = _shape(run_dir / manifest.artifacts[name])
        found["dagster/row_count"] = dg.MetadataValue.int(rows)
        if columns:
            fields = RECORDS[name].model_fields if name in RECORDS else {}
            described = [
                dg.TableColumn(column, kind, description=fields[column].description if column in fields else None)
                for column, kind in columns.items()
            ]
            found["dagster/column_schema"] = dg.MetadataValue.table_schema(dg.TableSchema(described))
    for name, relative in manifest.artifacts.items():
        path = run_dir / relative
        if path.suffix == ".csv" and path.is_file():
            found |= _whole(name, path)
    return found


def _shape(path: Path) -> tuple[int, dict[str, str]]:
    """Number of rows, and column → type, of a Parquet, CSV or JSON Lines file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet  # not while Dagster loads definitions

        schema = pyarrow.parquet.read_schema(path)
        return pyarrow.parquet.read_metadata(path).num_rows, {field.name: _type(field.type) for field in schema}
    with path.open(encoding="utf-8", newline="") as handle:
        if path.suffix == ".csv":
            reader = csv.DictReader(handle)
            rows = list(reader)
            columns = {name: [_cell(row[name]) for row in rows if row[name]] for name in reader.fieldnames or ()}
            return len(rows), {name: _common_type(cells) for name, cells in columns.items()}
        first = handle.readline()
        count = bool(first.strip()) + sum(1 for line in handle if line.strip())
    values = json.loads(first) if first.strip() else {}
    return count, {key: type(value).__name__ for key, value in values.items()}


def _type(kind: object) -> str:
    """A column's type, without the whole tree of a nested one."""
    return str(kind).partition("<")[0]


def _common_type(cells: Sequence[object]) -> str:
    kinds = {type(cell) for cell in cells}
    return "string" if str in kinds or not kinds else "float" if float in kinds else "int"


def _whole(name: str, path: Path) -> dict[str, dg.MetadataValue]:
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or len(rows) > SHOWN_ROWS:
        return {}
    records = [dg.TableRecord({key: _cell(value) for key, value in row.items()}) for row in rows]
    columns = {key: [record.data[key] for record in records if record.data[key] != ""] for key in rows[0]}
    schema = dg.TableSchema([dg.TableColumn(key, _common_type(cells)) for key, cells in columns.items()])
    return {f"table/{name}": dg.MetadataValue.table(records, schema=schema)}


def _cell(text: str) -> str | float | int:
    """A cell as a number where it is one, so that the page can sort by it."""
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text  # JSON has no such number
    return int(text) if text.lstrip("-").isdigit() else number
