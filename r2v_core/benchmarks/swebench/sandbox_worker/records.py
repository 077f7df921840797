"""What pytest itself says of every test, on a channel beside its output.

A plugin of ours, loaded before anything of the repository, writes a line for each report to a file that has no name,
signed with a key that only it has read. Whoever prints a result, or writes to that file, does not have the key. Tests
and the code that they test run in one process, though: code that searches that process can find it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PLUGIN = """
import hashlib, hmac, json, os, sys, types, unittest

_channel = os.environ.pop("R2V_RECORDS", "")
_CHANGED = frozenset(json.loads(CHANGED))
_WATCHED = frozenset((
    "sys.settrace", "sys.setprofile", "sys.monitoring.register_callback",
    "gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._getframe",
))


def _ways_to_judge():
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("pytest", "_pytest", "pluggy", "unittest"):
            spaces = [vars(module), *(vars(one) for one in list(vars(module).values()) if isinstance(one, type))]
            for space in spaces:
                for key, value in list(space.items()):
                    if isinstance(value, (types.FunctionType, type, classmethod, staticmethod, property)):
                        yield name + "." + key, space, key, value, getattr(value, "__code__", None)


class _Recorder:
    def __init__(self, config, key_from, to):
        key = os.pread(key_from, 64, 0)
        os.ftruncate(key_from, 0)  # for whoever holds it open, too
        os.close(key_from)
        named = getattr(config, "cwd_relative_nodeid", str)
        count = 0
        known = list(_ways_to_judge())
        told = set()
        busy = False

        def say(*fact):
            nonlocal count
            text = json.dumps([count, *fact])
            count += 1
            signed = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
            os.write(to, (signed + " " + text + "\\n").encode())

        def watch(event, arguments):
            nonlocal busy
            if event in _WATCHED and not busy:
                busy = True
                frame = sys._getframe(1)
                busy = False
                while event != "sys._getframe" and frame is not None and frame.f_code.co_filename not in _CHANGED:
                    frame = frame.f_back
                if frame is not None and frame.f_code.co_filename in _CHANGED and event not in told:
                    told.add(event)
                    say("watched", event)

        def reported(report):
            for name, space, key, value, code in known:
                if (space.get(key) is not value or getattr(value, "__code__", None) is not code) and name not in told:
                    told.add(name)
                    say("watched", name)
            say("test", named(report.nodeid), report.when, report.outcome, hasattr(report, "wasxfail"))

        sys.addaudithook(watch)
        self.pytest_runtest_logreport = reported
        self.pytest_sessionfinish = lambda session, exitstatus: say("end", int(exitstatus))


def pytest_configure(config):
    global _channel
    if _channel:  # of sessions that tests start none
        found, _channel = _channel, ""
        config.pluginmanager.register(_Recorder(config, *map(int, found.split(","))))
"""
"""Its lines: ``[number, "test", name, when, outcome, expected to fail]``, ``[number, "end", exit status]``, and
``[number, "watched", what]`` where a changed file looks into the test process in a way that Python tells of, or one of
pytest's or unittest's functions is no more what it was."""


@dataclass(frozen=True)
class Channel:
    """Where a test command's records go."""

    variables: dict[str, str]
    descriptors: Sequence[int]
    key: bytes
    file: IO[bytes]

    def read(self) -> list[Any] | None:
        """The records in order, without their numbers; None where something else wrote there, or took some away."""
        self.file.seek(0)
        found: list[Any] = []
        for line in self.file.read().splitlines():
            signed, _, text = line.partition(b" ")
            if not hmac.compare_digest(signed, hmac.new(self.key, text, hashlib.sha256).hexdigest().encode()):
                return None
            number, *fact = json.loads(text)
            if number != len(found):
                return None
            found.append(fact)
        return found


@contextmanager
def recording(plugins: Sequence[str], path: str, changed: Sequence[str]) -> Iterator[Channel]:
    """Variables and descriptors with which pytest, if the command runs it, writes records.

    Args:
        plugins: modules of the environment's own plugins, loaded by name; what a repository registers is not loaded.
        path: ``PYTHONPATH`` as it would be.
        changed: files of the fix.
    """
    name = f"r2v_records_{secrets.token_hex(8)}"  # nothing in the repository is called so
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as key, tempfile.TemporaryFile("a+b") as to:
        Path(folder, f"{name}.py").write_text(PLUGIN.replace("CHANGED)", f"{json.dumps(changed)!r})"), "utf-8")
        secret = secrets.token_hex(32).encode()
        key.write(secret)
        key.flush()
        descriptors = (key.fileno(), to.fileno())
        variables = {
            "R2V_RECORDS": ",".join(map(str, descriptors)),
            "PYTEST_PLUGINS": ",".join([name, *plugins]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [folder, path])),
        }
        yield Channel(variables, descriptors, secret, to)
