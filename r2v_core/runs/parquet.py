"""Records as Parquet, written once at a run's end: for large reads and for SQL.

The layout has one typed column for each scalar field, so that DuckDB filters and aggregates without parsing
anything, and one JSON text column for each nested field (``steps``, ``metadata``). Nested Arrow structs would not bring
every record back: a struct has the union of all keys, so ``{}`` and ``{"a": null}`` become the same, and an empty
struct can't be written at all. DuckDB reads into the text: ``SELECT steps->>'$[0].action' FROM '….parquet'``.
"""

from __future__ import annotations

import json
import os
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from r2v_core.errors import R2VError
from r2v_core.migrations import FIELD, check_version, current_version, upgrade
from r2v_core.runs.jsonl import reason, sync_directory, to_json
from r2v_core.runs.spec import UpstreamRun
from r2v_core.trajectory import Episode

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", bound=BaseModel)

_ROW_GROUP = 1000
"""Records per Parquet row group."""


def write_parquet(path: Path, records: Iterable[BaseModel], model: type[BaseModel] | None = None) -> int:
    """Write records of one type to a Parquet file (zstd), whole or not at all, and return how many there were.

    Episodes get further columns for queries: ``n_steps, cost, action_hash, actions, run_id, teacher_provider,
    teacher_model, split, family, method``; reading ignores them.

    Args:
        path: the file, replaced if it exists.
        records: streamed, one row group of 1,000 in memory at a time.
        model: their type; the first record's unless given, :class:`Episode` where there is none.

    Raises:
        R2VError: naming the file, if a record has another type or no exact form, or if the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rest = iter(records)
    first = list(islice(rest, 1))
    model = model or (type(first[0]) if first else Episode)
    rows = chain(first, rest)
    schema = _schema(model)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    n = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while batch := list(islice(rows, _ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist([_row(record, model, path) for record in batch], schema))
                n += len(batch)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except (OSError, pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise R2VError(f"{path}: can't write ({reason(error)})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return n


def read_parquet(path: Path, model: type[T]) -> Iterator[T]:
    """Stream the records of :func:`write_parquet`, equal to those written.

    Raises:
        R2VError: naming the file, if it is missing, is not Parquet, holds another record type or a newer version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    nested = {name: _scalar(field.annotation) is None for name, field in _fields(model).items()}
    known = current_version(model.__name__)
    try:
        with pq.ParquetFile(path) as file:
            schema, found = file.schema_arrow, file_version(file.schema_arrow)
            if (said := (schema.metadata or {}).get(b"record", model.__name__.encode()).decode()) != model.__name__:
                raise R2VError(f"{path}: holds {said} records instead of {model.__name__} ones; name another file")
            check_version(model.__name__, found, path)
            older = found < known
            if older:
                nested = _older_columns(schema)
            elif missing := sorted(set(nested) - set(schema.names)):
                raise R2VError(f"{path}: not a file of {model.__name__} records: no column {', '.join(missing)}")
            for batch in file.iter_batches(batch_size=_ROW_GROUP, columns=list(nested)):
                for row in batch.to_pylist():
                    values = {k: json.loads(v) if nested[k] and v is not None else v for k, v in row.items()}
                    if older:
                        values = upgrade(model.__name__, values | {FIELD: found}, path)
                    yield model.model_validate(values)
    except FileNotFoundError:
        raise R2VError(f"{path}: no such file; materialise the run that writes it") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise R2VError(f"{path}: not a readable file of {model.__name__} records ({reason(error)})") from error


def parquet_metadata(model: type[BaseModel]) -> dict[str, str]:
    """What a file says of its records: their type, their version, and which columns hold JSON."""
    nested = [name for name, field in _fields(model).items() if _scalar(field.annotation) is None]
    return {"record": model.__name__, FIELD: str(current_version(model.__name__)), "json": ",".join(nested)}


def file_version(schema: pa.Schema) -> int:
    """The version of a file's records; 1 for files that were written before they said so."""
    return int((schema.metadata or {}).get(FIELD.encode(), b"1"))


def _older_columns(schema: pa.Schema) -> dict[str, bool]:
    """Every column of the record → whether it holds JSON, as an older file says."""
    names = (schema.metadata or {}).get(b"json", b"steps,metadata").decode().split(",")
    return {name: name in names for name in schema.names if name not in _EPISODE_COLUMNS}


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that have a column; the version stands in the file's metadata."""
    return {name: field for name, field in model.model_fields.items() if name != FIELD}


def read_episodes(run: UpstreamRun) -> Iterator[Episode]:
    """Episodes of a finished run, from its Parquet file."""
    return read_parquet(run.artifact("episodes"), Episode)


_EPISODE_COLUMNS: dict[str, Callable[[Episode], Any]] = {
    "n_steps": lambda episode: len(episode.steps),
    "cost": lambda episode: float(episode.cost),
    "action_hash": lambda episode: episode.action_hash,
    "actions": lambda episode: episode.actions,
} | {
    key: lambda episode, key=key: None if episode.metadata.get(key) is None else str(episode.metadata[key])
    for key in ("run_id", "teacher_provider", "teacher_model", "split", "family", "method")
}


def _schema(model: type[BaseModel]) -> pa.Schema:
    import pyarrow as pa

    arrow = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    columns = [
        pa.field(name, arrow[kind] if (kind := _scalar(field.annotation)) else pa.string())
        for name, field in _fields(model).items()
    ]
    if model is Episode:
        derived = {"n_steps": pa.int64(), "cost": pa.float64(), "actions": pa.list_(pa.string())}
        columns += [pa.field(name, derived.get(name, pa.string())) for name in _EPISODE_COLUMNS]
    return pa.schema(columns, metadata=parquet_metadata(model))


def _row(record: BaseModel, model: type[BaseModel], path: Path) -> dict[str, Any]:
    if type(record) is not model:
        raise R2VError(f"{path}: a {type(record).__name__} among {model.__name__} records")
    row: dict[str, Any] = {}
    for name, value in record.model_dump().items():
        scalar = _scalar(model.model_fields[name].annotation) is not None or value is None
        row[name] = value if scalar else to_json(value, f"{path}: '{name}' of a {model.__name__}")
    if isinstance(record, Episode):
        row |= {name: derive(record) for name, derive in _EPISODE_COLUMNS.items()}
    return row


def _scalar(annotation: Any) -> type | None:
    """The Python type of a column that holds ``annotation`` (optional or literal too); None for nested values."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _scalar(inner[0]) if len(inner) == 1 else None
    if get_origin(annotation) is Literal:
        kinds = {type(choice) for choice in get_args(annotation)}
        return kinds.pop() if len(kinds) == 1 else None
    return annotation if annotation in (bool, int, float, str) else None
