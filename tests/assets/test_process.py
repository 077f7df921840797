"""How a stage's process is run, watched and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from r2v_assets.compute.local import run_process, thread_settings

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import os, signal, sys
from r2v_assets.compute.local import run_process
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves run in the background
run_process([sys.executable, "-c", sys.argv[1]], ".", dict(os.environ), 2.0)
"""
CHILD = """
import os, signal, sys, time
def stop(*_):
    open("stopped", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open("pid", "w") as file: file.write(str(os.getpid()))
time.sleep(600)
"""
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pid", "w") as file: file.write(f"{os.getpid()} {grandchild.pid}")
time.sleep(600)
"""


def wait_for(condition: object, seconds: float = 120.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def start(tmp_path: Path, code: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    pid = tmp_path / "pid"
    assert wait_for(lambda: pid.exists() and pid.read_text())
    return parent, [int(text) for text in pid.read_text().split()]


def test_exit_status_and_last_lines_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('[x] told', 'kept', sep='\\n', file=sys.stderr); print('out'); sys.exit(3)"
    status, tail = run_process([sys.executable, "-c", code], str(ROOT), dict(os.environ), 1.0, (b"[x] ",))
    assert (status, tail) == (3, ["[x] told", "kept"])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out\n", "kept\n")


def test_output_streams_while_it_runs(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; print('early', file=sys.stderr, flush=True)\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.05)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    thread = threading.Thread(target=run_process, args=([sys.executable, "-c", code], str(tmp_path), environment, 1.0))
    thread.start()
    seen = ""

    def early() -> bool:
        nonlocal seen
        seen += capfd.readouterr().err
        return "early" in seen

    try:
        assert wait_for(early) and thread.is_alive()
    finally:
        (tmp_path / "go").touch()
        thread.join()


def test_interrupt_lets_the_process_close_its_files(tmp_path: Path) -> None:
    parent, (child,) = start(tmp_path, CHILD)
    parent.send_signal(signal.SIGINT)
    parent.wait(timeout=120)
    assert not alive(child) and (tmp_path / "stopped").exists()


def test_a_process_that_will_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    parent, pids = start(tmp_path, STUBBORN)
    parent.send_signal(signal.SIGINT)
    parent.wait(timeout=120)
    assert wait_for(lambda: not any(alive(pid) for pid in pids), 5)


def test_killing_the_orchestrator_ends_the_process(tmp_path: Path) -> None:
    parent, (child,) = start(tmp_path, CHILD)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not alive(child), 60) and (tmp_path / "stopped").exists()


@pytest.mark.parametrize(("at_once", "expected"), [("", {}), ("1", {}), ("2", {"OMP_WAIT_POLICY": "passive"})])
def test_threads_wait_asleep_where_stages_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, at_once: str, expected: dict[str, str]
) -> None:
    monkeypatch.setenv("R2V_COMPUTE", "local")
    monkeypatch.setenv("R2V_STAGES_AT_ONCE", at_once)
    assert thread_settings() == expected
