"""Append-only JSON Lines that survive a killed writer.

One JSON object a line, UTF-8, lines ended by a newline and by nothing else: U+2028 and its like inside a string do not
end a line. A store has one writer at a time; any number of processes may read while it writes.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from r2v_core.errors import R2VError
from r2v_core.migrations import read_record, versioned

T = TypeVar("T", bound=BaseModel)

_BLOCK = 1 << 16


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
        line = to_json(versioned(record), f"{self.path}: a {self.model.__name__}").encode() + b"\n"
        if self._fd is None:
            self._open()
        assert self._fd is not None
        end = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {written} of {len(line)} bytes fitted")
            os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            self.close()  # the next append repairs the end, should the disk have refused even that
            raise R2VError(f"{self.path}: can't append ({reason(error)}); free some space and run again") from error

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
            raise R2VError(f"{self.path}: can't repair its end ({reason(error)})") from error

    def read(self, on_error: Callable[[str], None] | None = None) -> Iterator[T]:
        """Stream the records in file order, passing over lines that are not one.

        Each such line is reported as ``file:line: what is wrong`` to ``on_error`` or, without it, in
        :attr:`problems`, which every read starts anew. Empty lines are nothing and not reported.

        Raises:
            R2VError: if the file exists but can't be read, or at a record of a newer version.
        """
        if self.path.exists() and not self.path.is_file():
            raise R2VError(f"{self.path}: not a file of records; move it out of the way")
        self.problems = []
        report = on_error or self.problems.append
        try:
            handle = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise R2VError(f"{self.path}: can't read ({reason(error)})") from error
        with handle:
            for number, line in enumerate(handle, start=1):
                text = line.rstrip(b"\n").removeprefix(b"\xef\xbb\xbf" if number == 1 else b"")
                if not text:
                    continue
                try:
                    yield read_record(self.model, text, f"{self.path}:{number}")
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
            sync_directory(self.path.parent)
        except OSError as error:
            raise R2VError(f"{self.path}: can't open for writing ({reason(error)})") from error


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """Write a whole file of records, or nothing: what is made in one go needs no line-by-line promise.

    Raises:
        R2VError: if a record has no exact JSON form, or if the file can't be written.
    """
    try:
        with whole_file(path) as handle:
            for record in records:
                handle.write(to_json(versioned(record), f"{path}: a {type(record).__name__}") + "\n")
    except OSError as error:
        raise R2VError(f"{path}: can't write ({reason(error)})") from error


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write whole or not at all: a reader never sees half of it, a crash never leaves half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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


def to_json(value: Any, what: str) -> str:
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


def reason(error: BaseException) -> str:
    """What went wrong, in the operating system's words or the error's first line."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]


def sync_directory(directory: Path) -> None:
    """Make a new name in ``directory`` survive a power failure."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
