"""Being asked to end: Ctrl-C, a terminal that closes, an orchestrator that cancels, a cluster's time limit.

A signal ends the work wherever it is (:class:`Stopped` unwinds, files are closed), except where that would lose work
or leave a file that says something false: there it is held (:func:`held`), and the work asks at its next step
(:func:`asked`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_S = 1.0
"""A signal that comes so soon after another means the same: a launcher passes on what the terminal sent already."""


class Stopped(BaseException):
    """The process was asked to end; unwinds like KeyboardInterrupt so that files are closed."""

    told = False
    """Whether the user has been told already."""

    def __init__(self, how: signal.Signals, saved: str = "") -> None:
        super().__init__(f"stopped by {how.name}{', ' if saved else ''}{saved}")
        self.status = 128 + how
        """The exit status of a process that ends by this signal."""


@dataclass
class _State:
    """Signals come to the process, so there is one of it."""

    listeners: int = 0
    held: bool = False
    asked: signal.Signals | None = None
    last: float = 0.0


_state = _State()


def ask(how: signal.Signals) -> None:
    """Note that the process is to end; the first signal counts."""
    _state.asked = _state.asked or how


def asked() -> signal.Signals | None:
    """The signal by which the process was asked to end."""
    return _state.asked


def check() -> None:
    """End here if the process was asked to, unless that is held.

    An exception that a signal's handler raises is lost where Python happens to be in a finaliser; long work asks again.

    Raises:
        Stopped: if so.
    """
    if _state.asked is not None and not _state.held:
        raise Stopped(_state.asked)


def _received(number: int, frame: FrameType | None) -> None:
    echo = _state.asked is not None and time.monotonic() - _state.last < ECHO_S
    ask(signal.Signals(number))
    _state.last = time.monotonic()
    if not echo:
        check()


def _leave(number: int, frame: FrameType | None) -> None:
    how = signal.Signals(number)
    os.write(2, f"stopped by {how.name}; nothing had begun yet\n".encode())
    os._exit(128 + how)


def _handle(handler: Handler) -> dict[signal.Signals, Handler]:
    """Install a handler; the ones that were. What `nohup` and a shell's background ignore stays ignored."""
    before: dict[signal.Signals, Handler] = {how: signal.getsignal(how) for how in SIGNALS}
    for how, present in before.items():
        if present is not signal.SIG_IGN or how == signal.SIGTERM:  # Dagster has its children ignore both in background
            signal.signal(how, handler)
    return before


def leave_quietly() -> None:
    """End at a signal in one line, until :func:`listening`: for the seconds in which libraries load."""
    _handle(_leave)


@contextmanager
def listening() -> Iterator[None]:
    """Signals raise :class:`Stopped`, or are noted where they are held. May be nested."""
    before = _handle(_received)
    _state.listeners += 1
    try:
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, handler)
        _state.listeners -= 1
        if not _state.listeners:
            _state.asked = None


@contextmanager
def held() -> Iterator[None]:
    """Signals are noted and do nothing else."""
    before, _state.held = _state.held, True
    try:
        yield
    finally:
        _state.held = before


@contextmanager
def at_once() -> Iterator[None]:
    """Inside :func:`held`: signals end the work wherever it is, also one that was held until here."""
    before, _state.held = _state.held, False
    try:
        check()
        yield
    finally:
        _state.held = before
