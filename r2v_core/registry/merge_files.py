"""The episodes that a merge keeps: read from the runs' own files, and copied without parsing them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import duckdb
from pydantic import ValidationError

from r2v_core.errors import R2VError
from r2v_core.migrations import current_version, read_record, versioned
from r2v_core.registry.database import reason
from r2v_core.registry.episode_rows import EPISODES_PARQUET
from r2v_core.registry.linewriter import CHANGED, LineWriter
from r2v_core.registry.merge import Source
from r2v_core.registry.store import MergedStore
from r2v_core.registry.values import describe
from r2v_core.runs.manifest import MANIFEST_NAME
from r2v_core.runs.parquet import file_version, parquet_metadata, read_parquet, write_parquet
from r2v_core.trajectory import Episode

MERGE_TMP = ".merge.tmp"
"""End of the name of a merge's unfinished output."""


def iter_episodes(sources: Iterable[Source]) -> Iterator[Episode]:
    """The kept episodes, read from the runs' own files.

    Raises:
        R2VError: if a file is gone, or no longer holds what was registered.
    """
    for source in sources:
        if not len(source.lines):
            continue
        if source.offsets is None or source.lengths is None:
            wanted = set(source.rows.tolist())
            yield from (e for row, e in enumerate(read_parquet(source.path, Episode)) if row in wanted)
            continue
        with _open(source) as handle:
            for line, offset, length in zip(source.lines, source.offsets, source.lengths, strict=True):
                try:
                    yield read_record(
                        Episode, os.pread(handle.fileno(), int(length), int(offset)), f"{source.path}:{line}"
                    )
                except ValidationError as error:
                    raise R2VError(f"{source.path}:{line}: {describe(error)}; {CHANGED}") from error


def check_output(output: Path) -> None:
    """Refuse an output that would change a run or is no ordinary file.

    Raises:
        R2VError: naming the run, or what is there.
    """
    real = Path(os.path.realpath(output))
    run = next((folder for folder in real.parents if (folder / MANIFEST_NAME).exists()), None)
    if run is not None:
        raise R2VError(f"{output}: it lies in the run directory {run}, which stays as it is; choose another output")
    if real.exists() and not real.is_file():
        raise R2VError(f"{output}: exists and is not an ordinary file; choose another output")


def write_merged(sources: list[Source], output: Path) -> MergedStore:
    """Write the kept episodes to a ``.jsonl`` or ``.parquet`` file, whole or not at all.

    JSON lines are copied as bytes. A Parquet file is made from the runs' Parquet copies where all have one.

    Raises:
        R2VError: for another suffix, an output that is one of the sources, a source that is gone or changed, or a
            full disk.
    """
    if output.suffix not in (".jsonl", ".parquet"):
        raise R2VError(f"{output}: the suffix says how to write; use .jsonl or .parquet")
    used = [source for source in sources if len(source.lines)]
    for source in used:
        if output.resolve() in (source.path.resolve(), source.path.with_name(EPISODES_PARQUET).resolve()):
            raise R2VError(f"{output}: it is one of the files to be merged; choose another output")
    check_output(output)
    temporary = output.with_name(f".{output.name}.{os.getpid()}{MERGE_TMP}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".jsonl":
            _write_jsonl(used, temporary)
        elif all(_has_parquet_copy(source) for source in used):
            _write_parquet(used, temporary)
        else:
            write_parquet(temporary, iter_episodes(used), Episode)
        temporary.replace(output)
    except (OSError, duckdb.Error) as error:
        raise R2VError(f"{output}: can't write the merge ({reason(error)})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return MergedStore(output, {s.run_id: len(s.lines) for s in sources}, {s.run_id: s.dropped for s in sources})


def _open(source: Source) -> BinaryIO:
    try:
        handle = source.path.open("rb")
    except OSError as error:
        raise R2VError(
            f"{source.path}: can't read the episodes of run {source.run_id} ({reason(error)}): r2v registry doctor"
        ) from error
    return handle


def _write_jsonl(sources: list[Source], output: Path) -> None:
    with output.open("wb", buffering=0) as out:
        target = LineWriter(out.fileno())
        target.reserve(sum(int(s.lengths.sum()) + len(s.lengths) for s in sources if s.lengths is not None))
        for source in sources:
            if source.offsets is None:
                for episode in iter_episodes([source]):
                    target.put(json.dumps(versioned(episode), ensure_ascii=False).encode() + b"\n")
                continue
            with _open(source) as handle:
                for start, end in _ranges(source):
                    target.copy(handle.fileno(), start, end, source.path)
        target.finish()


def _ranges(source: Source) -> Iterator[tuple[int, int]]:
    """(begin, end) of runs of neighbouring lines, ends without the last newline."""
    import numpy as np

    assert source.offsets is not None and source.lengths is not None
    ends = source.offsets + source.lengths
    breaks = np.flatnonzero(source.offsets[1:] != ends[:-1] + 1)
    firsts = np.r_[0, breaks + 1]
    lasts = np.r_[breaks, len(ends) - 1]
    yield from zip(source.offsets[firsts].tolist(), ends[lasts].tolist(), strict=True)


def _has_parquet_copy(source: Source) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source.path.with_name(EPISODES_PARQUET))
        same = file_version(file.schema_arrow) == current_version("Episode")
        return same and int(file.metadata.num_rows) == source.n_all
    except (OSError, pa.ArrowException):
        return False


def _write_parquet(sources: list[Source], output: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [str(source.path.with_name(EPISODES_PARQUET)) for source in sources]
    said = ", ".join(f"{name}: '{value}'" for name, value in parquet_metadata(Episode).items())
    columns = ", ".join(f'"{name}"' for name in pq.read_schema(files[0]).names)
    dropped = [np.setdiff1d(np.arange(s.n_all), s.rows, assume_unique=True) for s in sources]
    gone = pa.table(
        {
            "file": pa.array(np.repeat(np.arange(len(files)), [len(rows) for rows in dropped]), pa.int64()),
            "row": pa.array(np.concatenate(dropped), pa.int64()),
        }
    )
    with duckdb.connect(config={"memory_limit": "600MB", "preserve_insertion_order": True}) as con:
        con.register("gone", gone)
        con.execute(
            f"COPY (SELECT {columns} FROM read_parquet($files, filename = true, file_row_number = true, "
            "union_by_name = true) AS merged WHERE NOT EXISTS (SELECT 1 FROM gone WHERE "
            "gone.row = merged.file_row_number AND $files[gone.file + 1] = merged.filename)) "
            f"TO '{str(output).replace(chr(39), chr(39) * 2)}' "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 4096, KV_METADATA {{{said}}})",
            {"files": files},
        )
