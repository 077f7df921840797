"""The hidden tests on a clean copy of the repository with a fix's source."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.swebench.sandbox_worker.changes import put
from r2v_core.benchmarks.swebench.sandbox_worker.commands import ended, environment, git
from r2v_core.benchmarks.swebench.sandbox_worker.control import sabotage
from r2v_core.benchmarks.swebench.sandbox_worker.records import recording

LOGGED = 16 << 20
"""Bytes kept of the beginning, and as many of the end, of what the hidden tests print, none of which may get lost."""

_MODULES = """
import importlib.metadata, json, pkgutil, sys
found = importlib.metadata.entry_points()
found = found.select(group="pytest11") if hasattr(found, "select") else found.get("pytest11", ())
names = sorted({*sys.builtin_module_names, *(module.name for module in pkgutil.iter_modules())})
print(json.dumps({"modules": names, "plugins": sorted({one.value.split(":")[0] for one in found})}))
"""


def modules(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What can be imported in the environment without the repository, and which of it are pytest's plugins."""
    command = ["python", "-I", "-c", _MODULES]
    variables = environment(request)
    done = subprocess.run(command, cwd="/", env=variables, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return dict(json.loads(done.stdout))


def judge(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The log of the hidden tests with the official harness' markers, and pytest's records.

    ``changes`` are those that count. With ``control`` the tests are made to fail; ``controlled`` says which had to.
    """
    marks = request["marks"]
    put(root, request["changes"])
    if problem := _apply_tests(root, request):
        return {"log": f"{marks['tests_error']}:\n{problem}"}
    controlled = sabotage(root, request["test_files"]) if request["control"] else []
    changed = [str(root / name) for name in request["changes"]]
    with recording(request["plugins"], request["environment"].get("PYTHONPATH", ""), changed) as channel:
        status, output = ended(root, request, request["command"], LOGGED, channel.variables, channel.descriptors)
        records = channel.read()
    if status is None:
        log = f"{output}\n{marks['timeout']}: {request['seconds']} s"
    else:
        log = f"{marks['start']}\n{output}\n{marks['end']}\n{marks['exit_code']}: {status}\n"
    return {"log": log, "status": status, "records": records, "controlled": controlled}


def _apply_tests(root: Path, request: dict[str, Any]) -> str:
    path = Path(tempfile.gettempdir(), "tests.diff")
    path.write_bytes(base64.b64decode(request["test_patch"]))
    try:
        if path.stat().st_size:
            git(root, request, "apply", "--verbose", str(path))
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode(errors="replace"))
    path.unlink()
    return ""
