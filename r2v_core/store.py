"""Records on disk: append-only JSON Lines that survive a killed writer, and Parquet for large reads.

One JSON object a line, UTF-8, lines ended by a newline and by nothing else: U+2028 and its like inside a string do not
end a line. A store has one writer at a time; any number of processes may read while it writes.

The Parquet layout has one typed column for each scalar field, so that DuckDB filters and aggregates without parsing
anything, and one JSON text column for each nested field (``steps``, ``metadata``). Nested Arrow structs would not bring
every record back: a struct has the union of all keys, so ``{}`` and ``{"a": null}`` become the same, and an empty
struct can't be written at all. DuckDB reads into the text: ``SELECT steps->>'$[0].action' FROM '….parquet'``.
"""

from __future__ import annotations

import gzip
import json
import os
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from r2v_core.errors import R2VError
from r2v_core.trajectory import Episode

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T", bound=BaseModel)

_BLOCK = 1 << 16
_ROW_GROUP = 1000
"""Records per Parquet row group."""


class JsonlStore(Generic[T]):
    """A JSON Lines file of one record type; usable as a context manager.

    Opening is lazy: reading never changes the file, the first :meth:`append` repairs its end (:meth:`recover`).
    A file that does not exist yet reads as empty.
    """

    def __init__(self, path: Path, model: type[T]) -> None:
        self.path = Path(path)
        self.model = model
        self.problems: list[str] = []
        """What the last :meth:`read` found wrong, one 'file:line: what' for each line it passed over."""
        self._fd: int | None = None

    def __enter__(self) -> JsonlStore[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def append(self, record: T) -> None:
        """Write one line and return once it is on the disk: a record whose append returned is never lost.

        Raises:
            R2VError: if the record has no exact JSON form, or if the line can't be written (disk full, quota);
                the file then ends where it ended before.
        """
        line = _to_json(record.model_dump(), f"{self.path}: a {self.model.__name__}").encode() + b"\n"
        if self._fd is None:
            self._open()
        assert self._fd is not None
        end = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes fitted")
            os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            self.close()  # the next append repairs the end, should the disk have refused even that
            raise R2VError(f"{self.path}: can't append ({_reason(error)}); free some space and run again") from error

    def recover(self) -> bytes:
        """Cut off what a killed writer left half-written at the end, and return what was cut (mostly nothing).

        A last line that is not a whole JSON object goes to ``<name>.torn`` beside the file, with or without its
        newline. One that lacks nothing but the newline gets it. Lines before the last one are left alone.

        Raises:
            R2VError: if the file can't be read or changed.
        """
        try:
            with self.path.open("r+b") as handle:
                start, last = _last_line(handle.fileno())
                if not last.strip(b"\n") or _is_object(last):
                    if last and not last.endswith(b"\n"):
                        handle.seek(0, os.SEEK_END)
                        handle.write(b"\n")
                    cut = b""
                else:
                    with self.path.with_name(f"{self.path.name}.torn").open("ab") as torn:
                        torn.write(last if last.endswith(b"\n") else last + b"\n")
                        torn.flush()
                        os.fsync(torn.fileno())
                    handle.truncate(start)
                    cut = last
                handle.flush()
                os.fsync(handle.fileno())
                return cut
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise R2VError(f"{self.path}: can't repair its end ({_reason(error)})") from error

    def read(self, on_error: Callable[[str], None] | None = None) -> Iterator[T]:
        """Stream the records in file order, passing over lines that are not one.

        Each such line is reported as ``file:line: what is wrong`` to ``on_error`` or, without it, in
        :attr:`problems`, which every read starts anew. Empty lines are nothing and not reported.

        Raises:
            R2VError: if the file exists but can't be read.
        """
        self.problems = []
        report = on_error or self.problems.append
        try:
            handle = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise R2VError(f"{self.path}: can't read ({_reason(error)})") from error
        with handle:
            for number, line in enumerate(handle, start=1):
                text = line.rstrip(b"\n")
                if not text:
                    continue
                try:
                    yield self.model.model_validate_json(text)
                except ValidationError as error:
                    torn = "" if line.endswith(b"\n") else " (half a line: the writer was killed, or is still writing)"
                    report(f"{self.path}:{number}: {_problem(error, text)}{torn}")

    def __iter__(self) -> Iterator[T]:
        return self.read()

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.recover()
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            _sync_directory(self.path.parent)
        except OSError as error:
            raise R2VError(f"{self.path}: can't open for writing ({_reason(error)})") from error


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Place (``file:line``) and content of every line of a JSON Lines file that others wrote, gzipped or not.

    Raises:
        R2VError: at a line that is no JSON, with its place.
    """
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                where = f"{path}:{number}"
                try:
                    row = json.loads(line)
                except ValueError:
                    raise R2VError(f"{where}: not a line of JSON") from None
                yield where, row


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
        _sync_directory(path.parent)
    except (OSError, pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise R2VError(f"{path}: can't write ({_reason(error)})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return n


def read_parquet(path: Path, model: type[T]) -> Iterator[T]:
    """Stream the records of :func:`write_parquet`, equal to those written.

    Raises:
        R2VError: naming the file, if it is missing, is not Parquet, or holds another record type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: _scalar(field.annotation) for name, field in model.model_fields.items()}
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(kinds) - set(file.schema_arrow.names))
            if missing:
                raise R2VError(f"{path}: not a file of {model.__name__} records: no column {', '.join(missing)}")
            for batch in file.iter_batches(batch_size=_ROW_GROUP, columns=list(kinds)):
                for row in batch.to_pylist():
                    values = {k: v if kinds[k] or v is None else json.loads(v) for k, v in row.items()}
                    yield model.model_validate(values)
    except FileNotFoundError:
        raise R2VError(f"{path}: no such file; materialise the run that writes it") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise R2VError(f"{path}: not a readable file of {model.__name__} records ({_reason(error)})") from error


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
        for name, field in model.model_fields.items()
    ]
    if model is Episode:
        derived = {"n_steps": pa.int64(), "cost": pa.float64(), "actions": pa.list_(pa.string())}
        columns += [pa.field(name, derived.get(name, pa.string())) for name in _EPISODE_COLUMNS]
    return pa.schema(columns, metadata={"record": model.__name__})


def _row(record: BaseModel, model: type[BaseModel], path: Path) -> dict[str, Any]:
    if type(record) is not model:
        raise R2VError(f"{path}: a {type(record).__name__} among {model.__name__} records")
    row: dict[str, Any] = {}
    for name, value in record.model_dump().items():
        scalar = _scalar(model.model_fields[name].annotation) is not None or value is None
        row[name] = value if scalar else _to_json(value, f"{path}: '{name}' of a {model.__name__}")
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


def _to_json(value: Any, what: str) -> str:
    """``value`` as JSON text that reads back equal.

    Raises:
        R2VError: for what JSON can't say: NaN and infinities, lone surrogates, keys that are not text, objects.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise R2VError(f"{what} can't be written as JSON: {error}") from error
    if not same:
        raise R2VError(f"{what} would not read back equal: use only JSON values (text keys, lists instead of tuples)")
    return text


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _last_line(fd: int) -> tuple[int, bytes]:
    """Offset and bytes of the last line, its newline included where it has one."""
    end = start = os.fstat(fd).st_size
    tail = b""
    while start > 0:
        size = min(_BLOCK, start)
        start -= size
        tail = os.pread(fd, size, start) + tail
        newline = tail.rfind(b"\n", 0, len(tail) - 1)
        if newline >= 0:
            return end - len(tail) + newline + 1, tail[newline + 1 :]
    return 0, tail


def _problem(error: ValidationError, text: bytes) -> str:
    if b"\0" in text:
        return f"{text.count(0)} NUL bytes, as a machine that lost power leaves them"
    try:
        text.decode()
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 (byte {wrong.start})"
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]


def _sync_directory(directory: Path) -> None:
    """Make a new name in ``directory`` survive a power failure."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
