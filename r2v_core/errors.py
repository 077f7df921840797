"""The one exception users are meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class R2VError(Exception):
    """A problem that the person running the pipeline can fix.

    Entry points (stage CLIs, the ``r2v`` command, Dagster assets) print its message alone, without a traceback, and
    exit with status 2. The message names the file, key or value at fault and what to do about it.
    """


class TransientError(R2VError):
    """A problem that may pass by itself, such as a lost connection; the orchestrator tries again."""

    STATUS = 69
    """Exit status of a stage (EX_UNAVAILABLE of sysexits.h)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
