"""Stages as processes of this machine, through Dagster Pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import dagster as dg
from pydantic import Field

from r2v_assets.choice import stages_at_once
from r2v_assets.compute.base import StageCompute, write_spec
from r2v_assets.interruption import end_if_cancelled
from r2v_assets.outcome import mark_stopped, outcome
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.spec import StageSpec
from r2v_core.stages.table import get_stage

LOOK_S = 2.0
"""How often a running stage's Dagster run is asked for, seconds."""
TAIL_LINES = 20
"""Lines of a stage's stderr kept for the failure message."""


class LocalCompute(StageCompute):
    """Each stage in its own process; its output streams live, a cancelled run ends it."""

    echo: bool = Field(
        False, description="print progress lines on stderr too; Dagster's console logger prints them unless silenced"
    )
    grace_s: float = Field(30.0, gt=0, description="seconds between SIGTERM and SIGKILL when a run is cancelled")

    def run(
        self, context: dg.AssetExecutionContext, spec: StageSpec, resources: Mapping[str, Any] = MappingProxyType({})
    ) -> RunManifest:
        """Run the stage; see :meth:`StageCompute.run`."""
        if resources:
            raise R2VError(
                f"cluster: {', '.join(resources)}: stages run on this machine, which has no resources to request; "
                "leave it out, or set R2V_COMPUTE=slurm"
            )
        command = [sys.executable, "-m", *get_stage(spec.stage).command, "--spec", str(write_spec(spec))]
        with (
            _quiet_preview(),
            dg.open_pipes_session(
                context=context,
                context_injector=dg.PipesTempFileContextInjector(),
                message_reader=dg.PipesTempFileMessageReader(),
            ) as session,
        ):
            environment = {
                **thread_settings(),
                **os.environ,
                **session.get_bootstrap_env_vars(),
                "R2V_DAGSTER_RUN_ID": context.run.run_id,
                "PYTHONUNBUFFERED": "1",
            }
            told_otherwise = (b"error: ",) if self.echo else (b"error: ", f"[{spec.stage}] ".encode())
            try:
                exit_code, last_lines = run_process(
                    command, spec.project, environment, self.grace_s, told_otherwise, partial(end_if_cancelled, context)
                )
            except BaseException:
                mark_stopped(Path(spec.run_dir), "the orchestrator was stopped, and killed the stage")
                raise
        return outcome(spec, exit_code, last_lines)


def thread_settings() -> dict[str, str]:
    """What a stage's process sets of OpenMP unless the user did.

    Where several stages share the cores, threads that wait by spinning take the time that the others need
    (benchmarks/side_by_side.py); alone they answer a little faster.
    """
    return {"OMP_WAIT_POLICY": "passive"} if stages_at_once() > 1 else {}


@contextmanager
def _quiet_preview() -> Iterator[None]:
    """Dagster warns of a part of Pipes that its own code uses; nobody here can do anything about that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


def run_process(
    command: Sequence[str],
    cwd: str,
    environment: Mapping[str, str],
    grace_s: float,
    hide: tuple[bytes, ...] = (),
    look: Callable[[], None] = lambda: None,
) -> tuple[int, list[str]]:
    """Run a command to its end; what it prints on stderr also goes to ours while it runs.

    Lines that begin with one of ``hide`` are left out: Dagster shows them already, as log lines or as the failure.

    If this process is interrupted, or ``look``, called now and then, raises, the command gets SIGTERM, and with
    everything it started SIGKILL after ``grace_s`` seconds. If this process is killed, the command gets SIGTERM too
    (see :mod:`.guard`).

    Returns:
        exit status as :mod:`subprocess` gives it (negative: signal), last lines of stderr.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "r2v_assets.compute.guard", str(os.getpid()), *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C reaches us alone; we pass it on as SIGTERM
    )
    assert process.stderr is not None
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    reader = threading.Thread(target=_copy, args=(process.stderr, tail, hide), daemon=True)
    reader.start()
    try:
        exit_code = _wait(process, look)
    except BaseException:
        _stop(process, grace_s)
        raise
    finally:
        reader.join(timeout=5)  # a grandchild may keep the pipe open
    return exit_code, list(tail)


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> int:
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_S)
        look()


def _stop(process: subprocess.Popen[bytes], grace_s: float) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started, and itself if it did not end
    process.wait()


def _copy(source: IO[bytes], tail: deque[str], hide: tuple[bytes, ...]) -> None:
    with source:
        for line in source:
            tail.append(line.decode(errors="replace").rstrip().rpartition("\r")[2])
            if not line.startswith(hide):
                with suppress(OSError):
                    os.write(2, line)
