"""What is left of Chromium: nothing after closing, nothing after our own end, whatever ends us."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Task
from r2v_core.benchmarks.miniwob.benchmark import TEMPLATES, pages_folder
from r2v_core.benchmarks.miniwob.env import MiniWobEnv
from r2v_core.benchmarks.web import chromium
from r2v_core.errors import R2VError

ROOT = Path(__file__).parents[2]
PATIENCE = 60
PAGES = [pages[0] for _, pages in TEMPLATES.values()]


def task(page: str) -> Task:
    return Task(
        task_id=page, template_id=page, benchmark="miniwob", family="f", goal="", split="train", max_steps=10,
        content="", options={"page": page, "seed": 1},
    )  # fmt: skip


def opened(page: str = "enter-text") -> MiniWobEnv:
    environment = MiniWobEnv(task(page), pages_folder())
    environment.reset()
    return environment


def running() -> Any:
    (process,) = chromium._running.values()
    return process


def family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def memory_mib(processes: list[psutil.Process]) -> float:
    """Their memory, what they share counted once; a helper that ends meanwhile has none."""
    found = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found / 2**20


def await_end(processes: list[psutil.Process], profile: str) -> None:
    """Wait until all are gone; who waits for the orphans among them is not ours to say, so zombies count as gone."""

    def alive(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + PATIENCE
    while (left := [p for p in processes if alive(p)]) or Path(profile).exists():
        assert time.monotonic() < deadline, (left, Path(profile).exists())
        time.sleep(0.02)


def test_one_process_for_all_pages_and_none_after_the_last() -> None:
    first, second = opened(), opened("login-user")
    pid, profile, processes = running().pid, running()._profile, family(running().pid)
    first.close()
    assert running().pid == pid and second.step("noop()").observation.state
    second.close()
    second.close()
    assert not chromium._running and not psutil.pid_exists(pid)
    await_end(processes, profile)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, None])
def test_nothing_outlives_us(how: signal.Signals | None) -> None:
    code = (
        "import signal, sys; from tests.benchmarks.test_miniwob_processes import opened, running\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # who starts in the background inherits none
        "one, two = opened(), opened('login-user')\n"
        "print(running().pid, running()._profile, flush=True)\n"
        "sys.stdin.readline()"
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert ours.stdout is not None and ours.stdin is not None
    pid, profile = ours.stdout.readline().split()
    processes = family(int(pid))
    assert len(processes) > 3 and Path(profile.decode()).is_dir()
    if how is None:
        ours.stdin.write(b"\n")  # it ends without closing anything
        ours.stdin.flush()
    else:
        ours.send_signal(how)
    ours.wait(PATIENCE)
    ours.stdin.close()
    ours.stdout.close()
    await_end(processes, profile.decode())


class Interrupt(Exception):
    """What the alarm raises; not an OSError, which a broken pipe is, too."""


def test_an_exception_in_the_middle_of_a_call_is_no_obstacle_to_closing() -> None:
    environment = opened()
    pid, profile, processes = running().pid, running()._profile, family(running().pid)

    def interrupt(signum: int, frame: object) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupt):
            while True:
                environment.step("noop()")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert environment.reset().observation.state  # nor to going on
    environment.close()
    assert not psutil.pid_exists(pid)
    await_end(processes, profile)


def test_a_browser_that_dies_is_said_in_one_line_and_followed_by_another() -> None:
    environment, other = opened(), opened("login-user")
    pid, profile, processes = running().pid, running()._profile, family(running().pid)
    processes[1].kill()  # the first is the shell that tidies up
    with pytest.raises(R2VError, match="Chromium ended") as caught:
        environment.step("click('4')")
    assert "\n" not in str(caught.value)
    environment.close()
    other.close()
    await_end(processes, profile)
    again = opened()
    assert running().pid != pid
    again.close()


def test_many_environments_side_by_side_and_nothing_left_of_them(tmp_path: Path) -> None:
    benchmark = make_benchmark("miniwob", {}, {"train": 1}, max_steps=10)
    files = len(list(Path("/proc/self/fd").iterdir()))
    with ExitStack() as stack:
        environments = [stack.enter_context(closing(benchmark.open(task(page), tmp_path))) for page in PAGES[:24]]
        assert len([one.reset() for one in environments]) == 24
        processes, profile = family(running().pid), running()._profile
        memory = memory_mib(processes)
        experts = [one.expert_action() for one in environments]
        outcomes = [one.step(str(action)) for one, action in zip(environments, experts, strict=True)]
        assert all(outcome.progress for outcome in outcomes)
    assert memory < 3000  # MiB; about 900
    assert not chromium._running
    await_end(processes, profile)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


def test_repeated_resets_do_not_grow() -> None:
    environment = opened("search-engine")

    for _ in range(3):
        environment.reset()
    before = memory_mib(family(running().pid))
    for _ in range(20):
        environment.reset()
    after = memory_mib(family(running().pid))
    environment.close()
    assert after - before < 150  # MiB
