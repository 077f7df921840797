"""The sandbox as its callers see it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from r2v_core.errors import R2VError
from r2v_core.sandbox import Limits, cgroups, find_backend, run
from r2v_core.sandbox.isolation import interpreter


@pytest.mark.parametrize("backend", ["bubblewrap", "none"])
def test_a_good_program_reads_its_files_and_its_input(backend: str) -> None:
    ended = run(
        [interpreter(), "main.py"],
        files={"main.py": "import sys, data\nprint(data.x + int(sys.stdin.read()))", "data.py": "x = 40"},
        stdin="2",
        backend=backend,
    )
    assert (ended.exit_code, ended.stdout, ended.stderr, ended.stopped) == (0, "42\n", "", None)


def test_exit_status_and_traceback_come_back() -> None:
    ended = run([interpreter(), "main.py"], files={"main.py": "raise ValueError('no')"})
    assert ended.exit_code == 1 and ended.stderr.endswith("ValueError: no\n")


@pytest.mark.parametrize(("maker", "code"), [("bwrap", 1), ("setpriv", 1), ("FATAL", 255), ("sh", 125)])
def test_a_program_that_speaks_like_the_box_stops_nothing(maker: str, code: int) -> None:
    source = f"import sys; sys.stderr.write('{maker}: no box\\n'); sys.exit({code})"
    ended = run([interpreter(), "-c", source])
    assert (ended.exit_code, ended.stderr) == (code, f"{maker}: no box\n")


def test_many_boxes_side_by_side_do_not_count_each_others_processes() -> None:
    source = "import threading, time\nts = [threading.Thread(target=time.sleep, args=(0.3,)) for _ in range(6)]\n"
    source += "[t.start() for t in ts]; [t.join() for t in ts]; print('ok')"
    limits = Limits(processes=10)
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(lambda _: run([interpreter(), "-c", source], limits=limits), range(8)))
    assert [one.stdout for one in ended] == ["ok\n"] * 8, ended


def test_a_box_starts_empty_every_time() -> None:
    run([interpreter(), "-c", "open('/tmp/left', 'w'); open('left', 'w')"])
    ended = run([interpreter(), "-c", "import os; print(os.listdir('/tmp'), os.listdir('.'))"])
    assert ended.stdout == "[] []\n"


def test_without_a_sandbox_nothing_runs_unless_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(R2VError, match="apt install bubblewrap"):
        find_backend()
    with pytest.raises(R2VError, match="apt install bubblewrap"):
        run(["true"])
    assert find_backend("none") == "none"


def test_an_unknown_sandbox_names_the_known_ones() -> None:
    with pytest.raises(R2VError, match=r"Unknown sandbox 'bubblewarp'.*bubblewrap"):
        find_backend("bubblewarp")


@pytest.mark.parametrize(("source", "stopped"), [("while True: pass", "time"), ("print('x' * 10**7)", "output")])
def test_limits_hold_without_isolation_too(source: str, stopped: str) -> None:
    limits = Limits(wall_s=1.0, output_kb=8)
    assert run([interpreter(), "-c", source], limits=limits, backend="none").stopped == stopped


def test_a_group_that_can_not_be_entered_is_no_program_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    enter = ["/bin/sh", "-c", cgroups._ENTER, "sh", "1", "/no"]
    monkeypatch.setattr(cgroups.Group, "entering", lambda self, command: [*enter, *command])
    with pytest.raises(R2VError, match=r"the sandbox 'bubblewrap' does not work here: .*no/cgroup"):
        run([interpreter(), "-c", "1"])
