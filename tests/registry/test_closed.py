"""What people write as SQL reaches nothing but the registry, and what lies about in data folders stops nobody."""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.registry.database import read, write
from r2v_core.registry.doctor import mark_partial
from r2v_core.runs.manifest import MANIFEST_NAME, read_manifest

from .conftest import MakeRun

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range + b.range = 7"


@pytest.fixture
def one(registry: DataRegistry, make_run: MakeRun) -> DataRegistry:
    registry.register_all([make_run("a", [["x"]]), make_run("b", [["y"]], status="partial")])
    return registry


CLOSING = ["status='done') OR (1=1", "1=1) OR (run_id = 'b'", "status='done' ORDER BY run_id", "true LIMIT 1",
           "1=1 UNION SELECT * FROM runs", "true; DROP TABLE runs", "", "true) --", "true /*"]  # fmt: skip


@pytest.mark.parametrize("where", CLOSING)
def test_a_condition_is_one_condition(one: DataRegistry, where: str) -> None:
    with pytest.raises(R2VError, match="condition"):
        one.query(where=where)
    with pytest.raises(R2VError, match="condition"):
        one.merge_to_run(where=where)


@pytest.mark.parametrize("where", [
    "EXISTS (SELECT 1 FROM read_text('{file}'))",
    "run_id IN (SELECT content FROM read_text('{file}'))",
    "run_id IN (SELECT * FROM read_csv('{file}'))",
    "run_id IN (SELECT column0 FROM '{file}')",
    "EXISTS (SELECT 1 FROM glob('/etc/*'))",
    "EXISTS (SELECT 1 FROM read_blob('{file}'))",
    "getenv('HOME') IS NOT NULL",
])  # fmt: skip
def test_a_condition_reads_no_file(one: DataRegistry, tmp_path: Path, where: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n")
    with pytest.raises(R2VError, match="condition on runs") as error:
        one.query(where=where.format(file=secret))
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(R2VError, match="condition on runs"):
        one.merge_to_run(where=where.format(file=secret))


def test_a_condition_reaches_no_address(one: DataRegistry) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x.csv"
        with pytest.raises(R2VError):
            one.query(where=f"EXISTS (SELECT 1 FROM read_csv('{address}'))")
        with pytest.raises(R2VError):
            one.sql(f"FROM '{address}'")
        server.shutdown()
    assert asked == []


def test_a_condition_may_ask_other_tables(one: DataRegistry) -> None:
    where = "run_id IN (SELECT run_id FROM episodes WHERE n_steps = 1) AND (status = 'done' OR seed = 7)"
    assert [run.run_id for run in one.query(where=where)] == ["a"]


def test_sql_ends_at_its_time_limit(one: DataRegistry) -> None:
    with pytest.raises(R2VError, match=r"stopped after 0\.2 s; narrow the question, or give it longer: --timeout"):
        one.sql(ENDLESS, timeout_s=0.2)
    assert one.sql("SELECT 1 AS one").one.tolist() == [1]


def test_sql_ends_at_ctrl_c(one: DataRegistry) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        one.sql(ENDLESS, timeout_s=60)
    timer.join()
    assert one.sql("SELECT 1 AS one").one.tolist() == [1]


class Cancelled(BaseException):
    """As an orchestrator's."""


@pytest.mark.parametrize("opened", [read, write])
def test_whatever_a_signal_raises_in_a_query_is_an_interruption(one: DataRegistry, opened: Any) -> None:
    """An orchestrator has its own exception for it, and DuckDB would make a RuntimeError of that."""

    def cancelled(*_: object) -> None:
        raise Cancelled

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, cancelled)
    try:
        with pytest.raises((KeyboardInterrupt, Cancelled)), opened(one.path) as con:
            timer.start()
            while True:  # nearly always the signal comes within a query, else before the next one
                con.execute("SELECT count(*) FROM range(10000000) WHERE range % 7 = 3")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert one.sql("SELECT 1 AS one").one.tolist() == [1]


@pytest.mark.parametrize("name", ["new.jsonl", "trajectories.jsonl", "deep/new.parquet", "run_manifest.jsonl"])
def test_a_merge_never_writes_into_a_run(one: DataRegistry, make_run: MakeRun, tmp_path: Path, name: str) -> None:
    other = make_run("other", [["z"]])
    before = {path: path.read_bytes() for path in other.iterdir()}
    (tmp_path / "link").symlink_to(other)
    for output in (other / name, tmp_path / "link" / name):
        with pytest.raises(R2VError, match="it lies in the run directory"):
            one.merge_runs(["a"], output)
    assert {path: path.read_bytes() for path in other.iterdir()} == before


def test_a_merge_replaces_no_link_into_a_run(one: DataRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    other = make_run("other", [["z"]])
    (tmp_path / "m.jsonl").symlink_to(other / "trajectories.jsonl")
    with pytest.raises(R2VError, match="it lies in the run directory"):
        one.merge_runs(["a"], tmp_path / "m.jsonl")
    os.mkfifo(tmp_path / "f.jsonl")
    with pytest.raises(R2VError, match="not an ordinary file"):
        one.merge_runs(["a"], tmp_path / "f.jsonl")


def test_fifos_links_and_loops_do_not_hold_sync_up(registry: DataRegistry, make_run: MakeRun) -> None:
    make_run("good", [["x"]])
    folder = registry.project / "data"
    for name in ("pipe", "gone", "ring"):
        (folder / "runs" / name).mkdir()
    os.mkfifo(folder / "runs/pipe" / MANIFEST_NAME)
    (folder / "runs/gone" / MANIFEST_NAME).symlink_to("nowhere")
    (folder / "runs/ring/loop").symlink_to(folder)
    (folder / "runs/ring" / MANIFEST_NAME).symlink_to(MANIFEST_NAME)
    piped = make_run("piped", [["x"]])
    for name in (
        "trajectories.jsonl",
        "evaluations.jsonl",
        "training_log.jsonl",
        "slurm_job.json",
        "trajectories.parquet",
    ):
        (piped / name).unlink(missing_ok=True)
        os.mkfifo(piped / name)
    (piped / "self").symlink_to(piped)
    report = registry.sync()
    assert sorted(report.registered) == ["good", "piped"]
    assert {finding.run_id for finding in registry.doctor()} <= {"piped", None}
    assert registry.rebuild().n_runs == 2
    with pytest.raises(R2VError, match="not a file; move it away"):
        read_manifest(folder / "runs/pipe")


def test_nothing_half_written_stays_in_a_run_that_is_marked(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("dead", [["x"]], status="running")
    (directory / "adapter").mkdir()
    for name in (".run_manifest.json.99.tmp", ".trajectories.parquet.99.tmp", "adapter/.config.json.99.tmp"):
        (directory / name).write_text("{")
    mark_partial(directory)
    assert not list(directory.rglob("*.tmp"))
