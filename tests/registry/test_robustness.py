"""Many writers, sudden deaths, full disks and files that are not what they should be."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry, database, schema
from r2v_core.registry.database import read, write

from .conftest import MakeRun, dump

SPAWN = multiprocessing.get_context("spawn")


def _register_each(project: str, names: list[str]) -> None:
    registry = DataRegistry(Path(project))
    for name in names:
        registry.register(Path(project) / "data/runs" / name)


def _register_for_ever(project: str, names: list[str]) -> None:
    while True:
        _register_each(project, names)
        with write(DataRegistry(Path(project)).path) as con:  # so that there is always something to write
            con.execute("DELETE FROM runs WHERE run_id LIKE 'k%'; DELETE FROM episodes WHERE run_id LIKE 'k%'")


def test_eight_processes_register_twenty_runs_each(registry: DataRegistry, make_run: MakeRun, project: Path) -> None:
    for i in range(160):
        make_run(f"r{i}", [[f"{i}-{k}"] for k in range(3)])
    workers = [
        SPAWN.Process(target=_register_each, args=(str(project), [f"r{i}" for i in range(w, 160, 8)])) for w in range(8)
    ]
    for worker in workers:
        worker.start()
    seen = []
    while any(worker.is_alive() for worker in workers):
        seen.append(len(registry.query()))  # readers are never shut out
        time.sleep(0.05)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert seen == sorted(seen)
    assert len(registry.query()) == 160
    assert registry.sql("SELECT count(*) AS n, count(DISTINCT action_hash) AS u FROM episodes").iloc[0].tolist() == [
        480,
        480,
    ]


def test_kill_dash_nine_at_any_moment(registry: DataRegistry, make_run: MakeRun, project: Path) -> None:
    registry.register(make_run("first", [["x"]]))
    names = [f"k{i}" for i in range(3)]
    for name in names:
        make_run(name, [[name, str(k)] for k in range(5)])
    chance = random.Random(0)
    for _ in range(8):
        worker = SPAWN.Process(target=_register_for_ever, args=(str(project), names))
        worker.start()
        before = registry.path.stat().st_ino
        deadline = time.monotonic() + 30
        while registry.path.stat().st_ino == before and time.monotonic() < deadline:
            time.sleep(0.01)  # it has begun to write
        time.sleep(chance.random() * 0.2)
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
        whole = registry.sql(
            "SELECT run_id, n_episodes, "
            "(SELECT count(*) FROM episodes WHERE episodes.run_id = runs.run_id) AS n FROM runs"
        )
        assert "first" in set(whole["run_id"])
        assert (whole["n_episodes"] == whole["n"]).all()
    began = time.monotonic()
    registry.register_all([project / "data/runs" / name for name in names])
    with write(registry.path) as con:  # the dead hold no lock
        con.execute("SELECT 1").fetchall()
    assert time.monotonic() - began < 10
    assert {run.run_id for run in registry.query()} == {"first", *names}
    assert database.leftovers(registry.path) == []


def test_a_lock_file_left_behind_locks_nothing(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.path.parent.mkdir(parents=True)
    registry.path.with_name("registry.duckdb.lock").write_text("999999")
    registry.register(make_run("a", [["x"]]))
    assert len(registry.query()) == 1


def test_a_lock_that_is_held_is_waited_for(registry: DataRegistry) -> None:
    with (
        database.lock(registry.path),
        pytest.raises(R2VError, match="another process has been writing"),
        database.lock(registry.path, timeout_s=0.2),
    ):
        pass


def test_readers_that_stay_open_hinder_no_writer_and_see_one_state(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register(make_run("a", [["x"]]))
    reader = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); "
        "sys.stdin.readline(); print(c.execute('SELECT count(*) FROM runs').fetchall()[0][0])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", reader, str(registry.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    registry.register(make_run("b", [["y"]]))
    assert len(registry.query()) == 2
    assert process.communicate("\n", timeout=30)[0] == "1\n"


@pytest.mark.parametrize("where", ["another process", "this process"])
def test_a_shell_that_opened_the_file_for_writing_hinders_nobody(
    registry: DataRegistry, make_run: MakeRun, where: str
) -> None:
    registry.register(make_run("a", [["x"]]))
    if where == "this process":
        with duckdb.connect(str(registry.path)):
            assert len(registry.query()) == 1
            registry.register(make_run("b", [["y"]]))
            assert len(registry.query()) == 2
        return
    shell = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", shell, str(registry.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        assert len(registry.query()) == 1
        registry.register(make_run("b", [["y"]]))
        assert len(registry.query()) == 2
        process.communicate("\n", timeout=30)
    assert len(registry.query()) == 2


def test_threads_read_while_others_write(registry: DataRegistry, make_run: MakeRun) -> None:
    directories = [make_run(f"r{i}", [[str(i)]]) for i in range(12)]
    failures: list[BaseException] = []

    def read_on(stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                assert registry.summary()["runs"] <= len(registry.sql("FROM runs"))  # runs are only added
        except BaseException as error:
            failures.append(error)

    stop = threading.Event()
    readers = [threading.Thread(target=read_on, args=(stop,)) for _ in range(3)]
    writers = [threading.Thread(target=registry.register_all, args=(directories[i::3],)) for i in range(3)]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert len(registry.query()) == 12


def test_a_read_only_file_is_named_and_left_alone(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register(make_run("a", [["x"]]))
    registry.path.chmod(0o444)
    before = registry.path.read_bytes()
    with pytest.raises(R2VError, match="read-only; allow writing with: chmod"):
        registry.register(make_run("b", [["y"]]))
    assert registry.path.read_bytes() == before
    assert len(registry.query()) == 1


def test_a_folder_that_cannot_be_made_is_one_line(project: Path, make_run: MakeRun) -> None:
    (project / "blocked").write_text("a file")
    registry = DataRegistry(project, project / "blocked" / "registry.duckdb")
    with pytest.raises(R2VError, match="can't lock the registry"):
        registry.register(make_run("a", [["x"]]))


def test_a_newer_schema_is_refused(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register(make_run("a", [["x"]]))
    with duckdb.connect(str(registry.path)) as con:
        con.execute("UPDATE schema_info SET version = version + 1")
    for act in (registry.query, lambda: registry.register(make_run("b", [["y"]]))):
        with pytest.raises(R2VError, match="newer than this program's") as caught:
            act()
        assert "r2v registry rebuild" in str(caught.value)
    assert registry.rebuild().n_runs == 2


def test_an_older_schema_is_carried_forward_with_a_backup(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register(make_run("a", [["x"]], inputs=[("tasks", "t")]))
    before = dump(registry)
    with duckdb.connect(str(registry.path)) as con:
        con.execute("UPDATE schema_info SET version = 0; DROP VIEW run_lineage; DROP TABLE slurm_jobs")
        con.execute("ALTER TABLE episodes DROP COLUMN method")
    assert len(registry.query()) == 1
    with read(registry.path) as con:
        assert schema.check(con, registry.path) == schema.VERSION
    assert len(registry.sql("FROM runs WHERE manifest_digest = ''")) == 1  # columns are missing: outdated
    assert len(registry.sql("FROM run_lineage")) == 2
    backup = registry.path.with_name("registry.duckdb.v0.bak")
    with duckdb.connect(str(backup), read_only=True) as con:
        assert con.execute("SELECT version FROM schema_info").fetchall() == [(0,)]
    assert registry.sync().registered == ["a"]
    assert dump(registry) == before


@pytest.mark.parametrize("damage", ["text", "empty", "half", "noise", "foreign"])
def test_a_corrupt_file_names_the_cure(registry: DataRegistry, make_run: MakeRun, damage: str) -> None:
    registry.register(make_run("a", [[str(i)] for i in range(200)]))
    content = bytearray(registry.path.read_bytes())
    if damage == "foreign":
        registry.path.unlink()
        with duckdb.connect(str(registry.path)) as con:
            con.execute("CREATE TABLE mine (i INT)")
    elif damage == "noise":
        for i in range(4096 * 3, len(content)):
            content[i] ^= 0x5A
        registry.path.write_bytes(content)
    else:
        whole = {"text": b"not a database", "empty": b"", "half": bytes(content[: len(content) // 2])}
        registry.path.write_bytes(whole[damage])
    for act in (
        lambda: registry.sql("FROM episodes"),
        registry.query,
        lambda: registry.register(make_run(f"b-{damage}", [["y"]])),
    ):
        with pytest.raises(R2VError, match="r2v registry rebuild") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert registry.rebuild().n_runs == 2
    assert len(registry.query()) == 2


def _register_within(project: str, name: str, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        DataRegistry(Path(project)).register(Path(project) / "data/runs" / name)
    except R2VError as error:
        print(error)
        os._exit(3)
    os._exit(0)


@pytest.mark.parametrize("room", [1_000, 1_000_000, 1_500_000])
def test_a_file_that_may_not_grow_leaves_the_old_state(
    registry: DataRegistry, make_run: MakeRun, project: Path, room: int
) -> None:
    registry.register(make_run("a", [["x"]]))
    make_run("big", [[str(i), os.urandom(8).hex()] for i in range(4000)], parquet=False)
    before = registry.path.read_bytes()
    worker = SPAWN.Process(target=_register_within, args=(str(project), "big", room))
    worker.start()
    worker.join()
    assert worker.exitcode == 3
    assert registry.path.read_bytes() == before
    assert database.leftovers(registry.path) == []
    registry.register(project / "data/runs/big")
    assert len(registry.query()) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 5 MB where this user may mount one, else None."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
        == 0
    )
    yield disk if mounted else None
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_state(
    registry: DataRegistry, make_run: MakeRun, project: Path, small_disk: Path | None
) -> None:
    if small_disk is None:  # test_a_file_that_may_not_grow… shows the same where nothing can be mounted
        return
    registry = DataRegistry(project, small_disk / "registry.duckdb")
    registry.register(make_run("a", [["x"]]))
    before = registry.path.read_bytes()
    (small_disk / "ballast").write_bytes(b"x" * (4_500_000 - 2 * len(before)))
    with pytest.raises(R2VError, match="it is as it was before"):
        registry.register(make_run("big", [[str(i), os.urandom(8).hex()] for i in range(8000)]))
    assert registry.path.read_bytes() == before
    assert [run.run_id for run in registry.query()] == ["a"]
    (small_disk / "ballast").unlink()
    registry.register(make_run("b", [["y"]]))
    assert len(registry.query()) == 2


class Meddler:
    """A connection during whose first ATTACH another process replaces the file."""

    def __init__(self, path: Path, newer: Path) -> None:
        self.con = duckdb.connect()
        self.path, self.newer = path, newer

    def execute(self, *args: object) -> duckdb.DuckDBPyConnection:
        answer = self.con.execute(*args)  # type: ignore[arg-type]
        if "ATTACH '/" in str(args[0]) and self.newer.exists():
            self.newer.replace(self.path)
        return answer


def test_a_file_replaced_while_it_is_opened_is_opened_again(
    registry: DataRegistry, make_run: MakeRun, project: Path
) -> None:
    registry.register(make_run("a", [["x"]]))
    newer = DataRegistry(project, project / "data" / "newer.duckdb")
    newer.register_all([project / "data/runs/a", make_run("b", [["y"]])])
    meddler = Meddler(registry.path, newer.path)
    with read(registry.path, engine=meddler) as con:  # type: ignore[arg-type]
        assert con.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]
