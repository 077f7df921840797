"""Control groups around boxes: which kind is used, what they hold, and that none is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r2v_core.sandbox import Limits, cgroups, control, run
from r2v_core.sandbox.isolation import interpreter
from tests.sandbox.users import PYTHONPATH, USERS, as_user

ROOTS = Path("/sys/fs/cgroup")
WAITS = """
import sys
from r2v_core.sandbox import Limits, control, run
print(control(), flush=True)
run([sys.argv[1], "-c", "print(1); import time; time.sleep(600)"], limits=Limits(wall_s=300))
"""


def groups_of(pid: int) -> list[str]:
    """Groups of a process' boxes that exist now."""
    return [folder for folder, _, _ in os.walk(ROOTS) if Path(folder).name.startswith(f"r2v-box-{pid}.")]


def until(done: Callable[[], bool]) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


@pytest.mark.parametrize("user", USERS)
def test_nothing_is_left_after_kill_9(user: str) -> None:
    rights, python = as_user(user)
    process = subprocess.Popen(
        [*rights, python, "-c", WAITS, interpreter() if user == "root" else python], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH}, cwd="/",
    )  # fmt: skip
    assert process.stdout
    kind = process.stdout.readline().strip()
    if kind != "watched":
        until(lambda: bool(groups_of(process.pid)))
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not groups_of(process.pid))


def test_a_group_is_gone_with_its_box_and_the_helper_with_its_process() -> None:
    assert run([interpreter(), "-c", "1"]).exit_code == 0
    assert not groups_of(os.getpid())
    source = "from r2v_core.sandbox import run; run(['/bin/true']); import psutil; print(psutil.Process().children())"
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "" and done.stdout.count("pid=") == (1 if control().startswith("cgroup") else 0)


HALVES = """
import os, time
children = [os.fork() for _ in range(1)]
held = bytearray(b"1") * (70 << 20)
time.sleep(0.5)
print("held")
if children[0]: os.wait()
"""


@pytest.mark.parametrize("kind", ["as it is", "watched"])
def test_shared_pages_count_once_and_the_sum_of_a_box_counts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "watched":
        monkeypatch.setattr(cgroups, "_candidates", lambda: iter(()))
        cgroups._place.cache_clear()
    try:
        assert (control() == "watched") or kind == "as it is"
        shared = HALVES.replace("children =", "big = bytearray(b'1') * (70 << 20)\nchildren =").replace("held =", "# ")
        fits = run([interpreter(), "-c", shared], limits=Limits(memory_mb=120))
        assert (fits.stopped, fits.stdout) == (None, "held\nheld\n")
        assert run([interpreter(), "-c", HALVES], limits=Limits(memory_mb=120)).stopped == "memory"
    finally:
        cgroups._place.cache_clear()


# -- which kind, on machines that this one is not


def v2(folder: Path, *controllers: str) -> Path:
    """A folder as the unified hierarchy shows one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.subtree_control").write_text(" ".join(controllers) + "\n")
    (folder / "cgroup.procs").write_text("")
    return folder


def test_the_nearest_delegated_group_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v2(tmp_path, "memory", "pids", "cpu")
    user = v2(tmp_path / "user@1000.service", "memory", "pids")
    v2(user / "app.slice", "pids")
    own = v2(user / "app.slice" / "shell.scope")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    monkeypatch.setattr(cgroups, "_MOUNTS", mounts)
    monkeypatch.setattr(cgroups, "_own_groups", lambda pid: [["0", "", f"/{own.relative_to(tmp_path)}"]])
    monkeypatch.setattr(cgroups.shutil, "which", lambda name: None)
    assert [(p.control, p.folders) for p in cgroups._candidates()] == [
        ("cgroup v2", (user,)),
        ("cgroup v2", (tmp_path,)),
    ]
    (written,) = cgroups._written("cgroup v2", Limits(memory_mb=2, processes=3, cpus=2))
    assert written == {
        "memory.max": 2 << 20, "memory.swap.max": 0, "memory.oom.group": 1, "pids.max": 7, "cpu.max": "200000 100000"
    }  # fmt: skip


def test_systemd_is_asked_for_a_scope_and_believed_only_if_its_limit_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    stub = tmp_path / "systemd-run"
    stub.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(cgroups, "_candidates", lambda: iter([cgroups._Place("systemd")]))
    cgroups._place.cache_clear()
    try:
        assert control() == "watched"  # the stub limits nothing
    finally:
        cgroups._place.cache_clear()
    words = told.read_text().splitlines()
    assert {"--scope", "--collect", "--property=MemoryMax=67108864", "--property=MemorySwapMax=0"} <= set(words)
    assert ("--user" in words) == (os.geteuid() != 0)


def test_what_even_the_helper_has_left_is_removed_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    old = time.time() - 2 * cgroups._SETTLED_S
    names = {f"r2v-box-{ended.pid}.ab-0": False, f"r2v-box-{ended.pid}.ab-1": True, f"r2v-box-{os.getpid()}.ab-0": True}
    for name, young in {**names, "r2v-box-other": False, f"{ended.pid}": False}.items():
        (tmp_path / name).mkdir()
        if not young:
            os.utime(tmp_path / name, (old, old))
    registered: list[tuple[Callable[..., None], object, int]] = []
    monkeypatch.setattr(cgroups.atexit, "register", lambda *call: registered.append(call))
    place = cgroups._Place("cgroup v2", (tmp_path,))
    cgroups._tidy_up_after(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*list(names)[1:], "r2v-box-other", f"{ended.pid}"]
    )
    (tmp_path / f"{place.prefix}-7").mkdir()
    ((let_go, helper, owner),) = registered
    let_go(helper, owner)  # as at the end of this process
    assert not (tmp_path / f"{place.prefix}-7").exists()


def test_a_group_holds_the_limits_it_was_made_with() -> None:
    limits = Limits(memory_mb=64, processes=5, cpus=2)
    with cgroups.group(limits) as made:
        assert bool(made.folders) == control().startswith("cgroup")
        for folder, files in zip(made.folders, cgroups._written(made.control, limits), strict=bool(made.folders)):
            there = {name: (folder / name).read_text().strip() for name in files if (folder / name).exists()}
            assert there == {name: str(files[name]) for name in there} and set(there) & {
                *cgroups._NEEDED,
                "cpu.max",
                "cpu.cfs_quota_us",
            }
    assert not any(folder.exists() for folder in made.folders)
