"""A session keyring of its own for what a thread starts: the caller's may hold tickets and keys."""

from __future__ import annotations

import ctypes
import platform

_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1


def leave_session_keyring() -> None:
    """Give the calling thread, and what it starts from now on, a new and empty session keyring.

    Other threads of the process keep theirs. A kernel without keys has none to leave; where a user has too many
    keyrings the old one stays, which a box can't reach either, since the calls for keys are refused inside.
    """
    number = _KEYCTL.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _JOIN_SESSION_KEYRING, None)
