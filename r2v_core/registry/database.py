"""The registry file: who may open it, how it changes, and what happens when the disk or the process gives up.

A change never touches the file that readers see. The writer takes the inter-process lock, copies the file, changes
and closes the copy, and renames it over the original. So a reader, however long it keeps the file open, holds a whole
consistent registry and is in nobody's way; a writer killed at any moment, or stopped by a full disk, leaves the
previous registry as it was. The lock is a kernel lock (flock) that ends with its holder: a lock file left behind
locks nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from r2v_core.errors import R2VError
from r2v_core.registry import schema

LOCK_TIMEOUT_S = 900.0
"""How long a writer waits for the other writers (a rebuild of a million episodes takes minutes)."""
_ATTACH_RETRIES = 20
_DAMAGE = re.compile(r"corrupt|checksum|could not read|deserializ|not a valid", re.IGNORECASE)
_IN_USE = re.compile("Could not set lock|Unique file handle conflict|already attached")
_local = threading.local()

Connection = duckdb.DuckDBPyConnection


def reason(error: BaseException) -> str:
    """The first line of an error, for one-line messages."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def is_damage(error: duckdb.Error) -> bool:
    """Whether DuckDB complains about the file rather than about the statement."""
    return isinstance(error, (duckdb.InternalException, duckdb.SerializationException)) or bool(
        _DAMAGE.search(str(error))
    )


def _unreadable(path: Path, error: BaseException) -> R2VError:
    return R2VError(
        f"{path}: not a readable registry ({reason(error)}); recreate it from the runs on disk: r2v registry rebuild"
    )


def _engine() -> Connection:
    """This thread's DuckDB engine. Starting one costs 15 ms, attaching a file to it 1 ms."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.engine, _local.pid = duckdb.connect(), os.getpid()
    return _local.engine


@contextmanager
def _interruptible() -> Iterator[None]:
    """A signal in the middle of a query is an interruption. DuckDB makes an error of its own of whatever was raised."""
    try:
        yield
    except RuntimeError as error:
        if "interrupted" not in str(error).lower():
            raise
        raise KeyboardInterrupt from None


@contextmanager
def read_closed(path: Path, timeout_s: float = 0.0) -> Iterator[Connection]:
    """:func:`read` for SQL that people wrote: nothing but the registry is in reach of it, no file and no network.

    Args:
        path: the registry file.
        timeout_s: how long the ``with`` block may take, seconds; 0: for ever. It ends with duckdb.InterruptException.
    """
    engine = duckdb.connect()
    alarm = threading.Timer(timeout_s, engine.interrupt)
    alarm.daemon = True
    try:
        with read(path, engine=engine) as con:
            con.execute(
                "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; "
                "SET enable_external_access = false; SET python_enable_replacements = false; "
                "SET lock_configuration = true"
            )
            if timeout_s:
                alarm.start()
            yield con
    finally:
        alarm.cancel()
        engine.close()


def is_closed(con: Connection) -> bool:
    """Whether a connection is one of :func:`read_closed`."""
    return not con.execute("SELECT current_setting('enable_external_access')").fetchall()[0][0]


@contextmanager
def read(path: Path, *, engine: Connection | None = None) -> Iterator[Connection]:
    """A connection that sees the registry, read-only, for the time of the ``with`` block (not nested in a thread).

    Where there is no file yet the registry is empty. A registry of an older schema is migrated first.

    Raises:
        R2VError: if the file is corrupt, is no registry, or is of a newer schema.
    """
    path = Path(os.path.realpath(path))
    con = engine or _engine()
    snapshot: Path | None = None
    try:
        try:
            if not path.exists():
                con.execute("ATTACH ':memory:' AS registry; USE registry")
                schema.create(con)
            else:
                snapshot = _attach(con, path)
                if schema.check(con, path) < schema.VERSION:
                    con.execute("USE memory; DETACH registry")
                    with write(path):
                        pass
                    snapshot = _attach(con, path)
        except (duckdb.Error, OSError) as error:
            raise _unreadable(path, error) from error
        try:
            with _interruptible():
                yield con
        except duckdb.Error as error:
            if not is_damage(error):
                raise
            _local.pid = None  # an engine that met a broken file is not used again
            raise _unreadable(path, error) from error
    finally:
        with suppress(duckdb.Error):
            con.execute("USE memory; DETACH DATABASE IF EXISTS registry")
        if snapshot:
            snapshot.unlink(missing_ok=True)


def _attach(con: Connection, path: Path) -> Path | None:
    """Attach the registry read-only; returns the private copy that was attached where the file itself can't be.

    DuckDB opens a file twice: it reads the headers, closes it, opens it again, locks it and reads on with those
    headers. A file that was replaced in between would be read with another file's headers (and, where writers change
    a file in place, a change that came in between is lost). So an attachment counts only if the path named one and
    the same file before and after it.

    Somebody's ``duckdb`` shell opens files for writing unless told otherwise and then shuts all readers out. The file
    is only ever replaced whole, so a copy of it is as good.
    """
    for _ in range(_ATTACH_RETRIES):
        before = _identity(path)
        try:
            con.execute(f"ATTACH '{_quoted(path)}' AS registry (READ_ONLY); USE registry")
        except duckdb.Error as error:
            if _IN_USE.search(str(error)):
                break
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return None
            con.execute("USE memory; DETACH registry")
    handle, name = tempfile.mkstemp(suffix=".duckdb", prefix="r2v-registry-")
    os.close(handle)
    copy = Path(name)
    try:
        shutil.copyfile(path, copy)
        con.execute(f"ATTACH '{_quoted(copy)}' AS registry (READ_ONLY); USE registry")
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return copy


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


@contextmanager
def lock(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the writers' lock of a registry file.

    Raises:
        R2VError: if another process keeps it for ``timeout_s``, or the lock file can't be made.
    """
    guard = FileLock(f"{path}.lock", timeout=timeout_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard.acquire()
    except Timeout:
        raise R2VError(
            f"{path}: another process has been writing the registry for {timeout_s:.0f} s; find it (fuser "
            f"{path}.lock) and wait for it or end it"
        ) from None
    except OSError as error:
        raise R2VError(f"{path}: can't lock the registry ({reason(error)}); is the directory writable?") from error
    try:
        yield
    finally:
        guard.release()


@contextmanager
def write(path: Path, *, fresh: bool = False, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[Connection]:
    """One atomic change of the registry: all of the ``with`` block, or nothing of it.

    Args:
        path: the registry file, made with its schema if there is none.
        fresh: start from an empty registry instead of the present one (which may be corrupt).
        timeout_s: how long to wait for other writers, seconds.

    Raises:
        R2VError: if the file is locked, read-only, corrupt or of a newer schema, or the disk is full; the registry is
            then what it was before.
    """
    path = Path(os.path.realpath(path))
    with lock(path, timeout_s):
        _check_writable(path)
        sweep(path)
        copy = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            con = _open_copy(path, copy, fresh)
            try:
                with _interruptible():
                    con.execute("BEGIN")
                    yield con
                    schema.update_totals(con)
                    con.execute("COMMIT; CHECKPOINT")
            finally:
                with suppress(duckdb.Error):
                    con.close()
            _replace(copy, path)
        except (OSError, duckdb.Error) as error:
            if isinstance(error, duckdb.Error) and is_damage(error):
                raise _unreadable(path, error) from error
            raise R2VError(f"{path}: can't write the registry ({reason(error)}); it is as it was before") from error
        finally:
            sweep(path)


def _open_copy(path: Path, copy: Path, fresh: bool) -> Connection:
    if fresh or not path.exists():
        con = duckdb.connect(str(copy))
        schema.create(con)
        return con
    shutil.copyfile(path, copy)
    shutil.copymode(path, copy)
    if (wal := _wal(path)).exists():  # someone else's committed writes, not yet in the file
        shutil.copyfile(wal, _wal(copy))
    try:
        con = duckdb.connect(str(copy))
        version = schema.check(con, path)
    except duckdb.Error as error:
        raise _unreadable(path, error) from error
    if version < schema.VERSION:
        con.close()
        shutil.copyfile(path, path.with_name(f"{path.name}.v{version}.bak"))
        con = schema.migrated(copy, version)
    return con


def _replace(copy: Path, path: Path) -> None:
    if _wal(copy).exists():
        raise OSError("DuckDB could not fold its log into the file")
    with copy.open("rb") as handle:
        os.fsync(handle.fileno())
    copy.replace(path)
    _wal(path).unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _check_writable(path: Path) -> None:
    if path.exists() and (not os.access(path, os.W_OK) or not path.stat().st_mode & 0o222):
        raise R2VError(f"{path}: the registry is read-only; allow writing with: chmod u+w {path}")


def leftovers(path: Path) -> list[Path]:
    """Half-made copies of killed writers. Meaningful only while nobody writes."""
    return sorted(path.parent.glob(f".{path.name}.*.tmp*"))


def sweep(path: Path) -> None:
    """Remove what killed writers left; called with the lock held."""
    for file in leftovers(path):
        with suppress(OSError):
            file.unlink()
