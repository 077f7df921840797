"""Files that a job writes, followed while they grow: its Pipes messages and its log.

They lie in the run directory on the shared file system, so they are read there; a broken SSH connection interrupts
nothing. ``dagster_slurm``'s readers follow files over SSH and stop at the first 'closed' message, which a requeued job
sends more than once.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pipes import PIPES_PROTOCOL_VERSION, PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter

EVERY_S = 0.25


def follow(path: Path, use: Callable[[bytes], None], stop: threading.Event) -> None:
    """Pass on every whole line of a file, which need not exist yet, until ``stop`` is set and all is read."""
    position, rest = 0, b""
    while True:
        stopping = stop.is_set()
        with suppress(FileNotFoundError), path.open("rb") as handle:
            handle.seek(position)
            data = handle.read()
            position += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                use(line)
        if stopping:
            if rest:
                use(rest)
            return
        stop.wait(EVERY_S)


@contextmanager
def following(path: Path, use: Callable[[bytes], None]) -> Iterator[None]:
    """Follow a file in the background for the time of the ``with`` block."""
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(path, use, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


class MessageReader(dg.PipesMessageReader):
    """Pipes messages from a file on the shared file system.

    A requeued job opens and closes the protocol again, a killed one never closes it. Dagster would warn of both; it
    hears one opening and one closing, and what became of the job is said by those who ask SLURM.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = threading.Event()
        """The stage has said its last word: the job is about to end."""

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, Any]]:
        """Hand every message to Dagster while the job runs."""

        def use(line: bytes) -> None:
            with suppress(ValueError):  # a line torn by a killed writer
                message = json.loads(line)
                if message["method"] == "closed":
                    self.closed.set()
                    return
                self.closed.clear()
                if message["method"] != "opened" or not handler.received_opened_message:
                    handler.handle_message(message)

        try:
            with following(self.path, use):
                yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.path)}
        finally:
            if handler.received_opened_message:
                version = {PIPES_PROTOCOL_VERSION_FIELD: PIPES_PROTOCOL_VERSION}
                handler.handle_message({**version, "method": "closed", "params": {}})

    def no_messages_debug_text(self) -> str:
        """Where the messages should have been."""
        return f"Attempted to read messages from file {self.path}."


class LogCopy:
    """Copies a job's log to our stderr, which Dagster keeps as the step's raw log, and remembers its last lines."""

    def __init__(self, hide: tuple[bytes, ...], lines: int = 20) -> None:
        self.hide = hide
        """Beginnings of lines that Dagster shows already."""
        self.tail: deque[str] = deque(maxlen=lines)

    def __call__(self, line: bytes) -> None:
        """Take one line."""
        self.tail.append(line.decode(errors="replace").rstrip().rpartition("\r")[2])
        if not line.startswith(self.hide):
            with suppress(OSError):
                os.write(2, line + b"\n")
