"""A box has a session keyring of its own, also where the filter of system calls would let it reach one."""

from __future__ import annotations

import ctypes
import platform
import struct
import threading

import pytest

from r2v_core.sandbox import SandboxResult, run, seccomp
from r2v_core.sandbox.isolation import interpreter

KEYCTL, ADD_KEY = (250, 248) if platform.machine() == "x86_64" else (219, 217)
EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
"""A filter that allows every call."""
READ = f"""
import ctypes, sys
libc, content = ctypes.CDLL(None), ctypes.create_string_buffer(64)
found = libc.syscall({KEYCTL}, 10, -3, b"user", sys.argv[1].encode(), 0)
print(content.value.decode() if found > 0 and libc.syscall({KEYCTL}, 11, found, content, 64, 0) > 0 else "nothing")
"""
LEAVE = f"""
import ctypes
print(ctypes.CDLL(None).syscall({ADD_KEY}, b"user", b"left", b"what is left", 12, -3) > 0)
"""


def boxed(source: str, *arguments: str) -> SandboxResult:
    return run([interpreter(), "-c", source, *arguments])


def test_neither_the_callers_keys_nor_another_boxs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "program", lambda counted: EVERYTHING)
    seen: list[str] = []

    def caller() -> None:
        libc = ctypes.CDLL(None)
        libc.syscall(KEYCTL, 1, None)
        assert libc.syscall(ADD_KEY, b"user", b"mine", b"a ticket", 8, -3) > 0
        assert libc.syscall(KEYCTL, 10, -3, b"user", b"mine", 0) > 0
        seen.extend(boxed(*one).stdout for one in ((READ, "mine"), (LEAVE,), (READ, "left")))
        assert libc.syscall(KEYCTL, 10, -3, b"user", b"mine", 0) > 0, "the caller keeps its own"

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join()
    assert seen == ["nothing\n", "True\n", "nothing\n"]


def test_with_the_filter_no_key_can_be_left_at_all() -> None:
    assert boxed(LEAVE).stdout == "False\n"
