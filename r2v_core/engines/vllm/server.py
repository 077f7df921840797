"""A vLLM server of a stage's own: started on this machine's loopback, ended with the stage, its log kept."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from r2v_core.console import say
from r2v_core.engines.vllm import keeper
from r2v_core.engines.vllm.client import Client
from r2v_core.errors import R2VError, TransientError
from r2v_core.runs import stopping

LOOK_S = 0.3
ENDING_S = 5.0
"""A server that has failed says so before it has ended."""
_LAUNCHER = re.compile(r"(RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_RANK|ROLE_\w+|MASTER_\w+|TORCHELASTIC_\w+|"
                       r"ACCELERATE_\w+|PYTHONPATH|VIRTUAL_ENV|\w+_API_KEY)")  # fmt: skip
"""Variables that are not the server's: of a launcher of several processes, of this environment, and keys."""
_ERROR = re.compile(r"(?:^|[ \]])((?:[A-Za-z_.]*\.)?[A-Za-z]*(?:Error|Exception)): *(.+)")
_SEQUEL = ("Engine core initialization failed", "cancelled", "EngineDeadError")
"""What vLLM says after an error whose cause it has said before."""


class Server:
    """A process that serves, and where.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        key: what it wants of those who ask: nobody else on this machine may.
        log: where it writes.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], environment: Mapping[str, str], log: Path) -> None:
        port = free_port()
        self.address, self.key, self.log = f"http://127.0.0.1:{port}", secrets.token_urlsafe(16), log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._from = log.stat().st_size if log.exists() else 0
        self.keeper = subprocess.Popen(
            [sys.executable, "-I", str(Path(keeper.__file__)), str(log), *command(port)],
            stdin=subprocess.PIPE,
            env={**environment, "VLLM_API_KEY": self.key},
        )
        self.stop = weakref.finalize(self, _let_go, self.keeper)

    def check(self) -> None:
        """Raise what has ended the server, if anything has; asked where a request has failed.

        Raises:
            TransientError: naming the reason and the log.
        """
        try:
            status = self.keeper.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            return
        raise TransientError(
            f"the vLLM server ended ({self.reason() or f'exit status {status}'}); its log: {self.log}; "
            "run the same command again to continue"
        )

    def reason(self) -> str:
        """The error that the log shows first, in one line; empty if it shows none."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            lines = file.read().decode("utf-8", "replace").splitlines()
        found = (_ERROR.search(line) for line in lines)
        errors = [f"{match[1].rpartition('.')[2]}: {match[2].strip()}" for match in found if match]
        return next((error[:300] for error in errors if not any(word in error for word in _SEQUEL)), "")

    def wait_until_ready(self, limit_s: float) -> None:
        """Block until the server answers.

        Raises:
            R2VError: if it ends before, or takes longer than ``limit_s``.
        """
        began, client = time.monotonic(), Client(self.address, "", LOOK_S * 10, lambda: None)
        while True:
            try:
                client.text("/health")
                return
            except TransientError:
                pass
            stopping.check()
            if self.keeper.poll() is not None:
                raise R2VError(
                    f"the vLLM server did not start ({self.reason() or f'exit status {self.keeper.returncode}'}); "
                    f"its log: {self.log}"
                )
            if time.monotonic() - began > limit_s:
                self.stop()
                raise TransientError(
                    f"the vLLM server was not ready after {limit_s:g} s (slm.engine_options.start_s); "
                    f"its log: {self.log}"
                )
            time.sleep(LOOK_S)


def start(command: Callable[[int], Sequence[str]], environment: Mapping[str, str], log: Path, limit_s: float) -> Server:
    """Start a server and wait until it answers.

    Args:
        command: the command line, given the port.
        environment: the variables that it gets.
        log: a file that its output is appended to.
        limit_s: how long it may take, seconds.

    Raises:
        R2VError: if it ends before, or takes longer.
    """
    server = Server(command, environment, log)
    began = time.monotonic()
    say(f"starting vLLM at {server.address}; its log: {log}", error=True)
    try:
        server.wait_until_ready(limit_s)
    except BaseException:
        server.stop()
        raise
    say(f"vLLM is ready after {time.monotonic() - began:.0f} s", error=True)
    return server


def free_port() -> int:
    """A port of this machine's loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of a server that this process starts; of several GPUs it gets its process's own."""
    kept = {name: value for name, value in environ.items() if not _LAUNCHER.fullmatch(name)}
    rank = environ.get("LOCAL_RANK")
    if rank is not None:
        visible = environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = visible.split(",") if visible else []
        kept["CUDA_VISIBLE_DEVICES"] = devices[int(rank)] if int(rank) < len(devices) else rank
    usual = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {**usual, "PATH": os.defpath, **kept}


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """End a server by letting go of its keeper, and wait until it is gone."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(keeper.GRACE_S + 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
