"""How a request gets to the worker: into a box of the sandbox, or a container of the instance's official image.

**Apptainer and Docker were never run here**: their command lines are tested, and what is said where they are missing.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from r2v_core.benchmarks.swebench.data import Instance
from r2v_core.errors import R2VError
from r2v_core.sandbox import Limits, run
from r2v_core.sandbox.isolation import interpreter

Execution = Literal["local", "apptainer", "docker"]
WORKER = "r2v_core.benchmarks.swebench.sandbox_worker"
PARTS = ("changes", "commands", "control", "records", "judging", "main")
"""The worker's modules, each after those that it imports."""


class SandboxUnresponsive(R2VError):
    """A box that gave no answer: what ran there met a limit, or broke it."""


@dataclass(frozen=True)
class Where:
    """How and with what instances are run."""

    execution: Execution
    folder: Path
    command_s: int
    tests_s: int
    memory_mb: int
    disk_mb: int


@cache
def script() -> str:
    """The worker as one program: its modules by their names, then the request that standard input holds."""
    folder = Path(__file__).with_name(WORKER.rpartition(".")[2])
    sources = {f"{WORKER}.{part}": (folder / f"{part}.py").read_text(encoding="utf-8") for part in PARTS}
    return (
        "import json, sys, types\n"
        f"for name, source in {sources!r}.items():\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    exec(compile(source, name, 'exec'), module.__dict__)\n"
        "module.main(json.load(sys.stdin))\n"
    )


def asked(launch: Callable[[str], tuple[str, str]], who: str, request: dict[str, Any]) -> dict[str, Any]:
    """The worker's answer to a request: the line with the request's seal, which nothing else in its box knows.

    Args:
        launch: takes a request's text to a worker; what is said there, and why it is not more.
        who: whom an error names.

    Raises:
        SandboxUnresponsive: if there is no answer.
    """
    seal = secrets.token_hex(16)
    said, why = launch(json.dumps({**request, "seal": seal}))
    sealed = [line for line in said.splitlines() if line.startswith(seal)]
    try:
        return dict(json.loads(sealed[-1].removeprefix(seal)))
    except (IndexError, ValueError, TypeError, RecursionError):
        raise SandboxUnresponsive(f"{who}: the box of '{request['mode']}' gave no answer: {why}") from None


def launched(
    instance: Instance, where: Where, request: str, seconds: int, base: bytes, python: Path | None
) -> tuple[str, str]:
    """What the worker printed, and why not more.

    Args:
        base: the repository as a tar, for a box.
        python: of the virtual environment, for a box.
    """
    if where.execution == "docker":
        return _in_docker(instance, request, where, seconds + 60)
    limits = Limits(
        wall_s=seconds + 60.0, cpu_s=seconds + 30, memory_mb=where.memory_mb, processes=128,
        disk_mb=where.disk_mb, output_kb=512 << 10,
    )  # fmt: skip
    if where.execution == "apptainer":
        command = ["python3", "-c", script()]
        image = f"docker://{instance.docker_image}"
        ended = run(command, stdin=request, limits=limits, backend="apptainer", image=image, writable=True)
    else:
        assert python is not None
        command = [interpreter(), "-I", "-S", "-B", "-c", script()]
        ended = run(
            command, files={"base.tar": base}, stdin=request, limits=limits, backend="bubblewrap",
            readable=_readable(python), hidden=_hidden(python),
        )  # fmt: skip
    last = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    return ended.stdout, f"it was stopped for its {ended.stopped}" if ended.stopped else last


def _home(python: Path) -> Path:
    """The prefix of the installation that a virtual environment is of."""
    return python.resolve().parents[1]


def _readable(python: Path) -> list[Path]:
    return [python.parents[1], _home(python)]


def _hidden(python: Path) -> list[Path]:
    """Other packages of this machine: among them may be the one to repair, in a version that is."""
    folders = [*_home(python).glob("lib/python3*/site-packages"), Path("/usr/lib/python3/dist-packages")]
    return [*folders, *Path("/usr/local/lib").glob("python3*/dist-packages")]


def docker_command(instance: Instance, where: Where, name: str) -> list[str]:
    """A container of the instance's image that runs the worker."""
    return [
        *("docker", "run", "--rm", "--interactive", "--name", name, "--network", "none", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--pids-limit", "256", "--memory", f"{where.memory_mb}m"),
        *("--workdir", "/tmp", instance.docker_image, "python3", "-c", script()),
    ]


def _in_docker(instance: Instance, request: str, where: Where, seconds: int) -> tuple[str, str]:
    name = f"r2v-{uuid.uuid4().hex[:12]}"
    try:
        done = subprocess.run(
            docker_command(instance, where, name), input=request, capture_output=True, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        subprocess.run(["docker", "kill", name], capture_output=True, check=False)
        return "", "it was stopped for its time"
    return done.stdout, (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
