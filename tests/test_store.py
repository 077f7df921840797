"""Records survive killed writers, torn lines, odd Unicode and full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2v_core.benchmarks.base import Task
from r2v_core.errors import R2VError
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.parquet import read_parquet, write_parquet
from r2v_core.trajectory import Candidate, Decision, Episode, Observation, Perturbation, Step

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["a\u2028b", "\u2029", "\x85", "\r\n", "\x00", "\x0b\x0c\x1c", "é😀", '"\\', ""]
)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
DETAIL = st.dictionaries(TEXT, JSON, max_size=2)
OBSERVATION = st.builds(Observation, state=TEXT, feedback=TEXT)
CANDIDATE = st.builds(
    Candidate,
    text=TEXT,
    logprob=FLOAT,
    n_tokens=st.integers(0, 9),
    entropy=FLOAT,
    score_step=st.none() | FLOAT,
    score_outcome=st.none() | FLOAT,
    progress=st.none() | st.booleans(),
)
DECISION = st.builds(
    Decision, method=TEXT, candidates=st.lists(CANDIDATE, max_size=2), features=st.dictionaries(TEXT, FLOAT, max_size=2)
)
STEP = st.builds(
    Step,
    index=st.integers(0, 99),
    observation=OBSERVATION,
    clean=st.none() | OBSERVATION,
    action=TEXT,
    actor=st.sampled_from(["teacher", "slm", "explore"]),
    progress=st.none() | st.booleans(),
    remaining=st.none() | st.integers(0, 9),
    perturbations=st.lists(st.builds(Perturbation, family=TEXT, operator=TEXT, detail=DETAIL), max_size=2),
    alternatives=st.dictionaries(TEXT, st.booleans(), max_size=2),
    decision=st.none() | DECISION,
    cost=FLOAT,
)
EPISODE = st.builds(
    Episode,
    episode_id=TEXT,
    benchmark=TEXT,
    task_id=TEXT,
    template_id=TEXT,
    goal=TEXT,
    steps=st.lists(STEP, max_size=2),
    success=st.booleans(),
    score=FLOAT,
    perturbation_seed=st.none() | st.integers(0, 2**63 - 1),
    metadata=DETAIL,
)


def episode(n: int, text: str = "x") -> Episode:
    step = Step(index=0, observation=Observation(state=text), action=f"go {n}", actor="teacher", cost=50)
    return Episode(
        episode_id=f"e{n}",
        benchmark="textworld",
        task_id=f"t{n % 2}",
        template_id="tpl",
        goal="win",
        steps=[step],
        success=n % 2 == 0,
        metadata={"run_id": "r", "split": "train"},
    )


def write(path: Path, n: int) -> list[Episode]:
    episodes = [episode(i) for i in range(n)]
    with JsonlStore(path, Episode) as store:
        for item in episodes:
            store.append(item)
    return episodes


@settings(max_examples=40, deadline=None)
@given(st.lists(EPISODE, max_size=4))
def test_episodes_come_back_equal_from_both_forms(
    tmp_path_factory: pytest.TempPathFactory, items: list[Episode]
) -> None:
    directory = tmp_path_factory.mktemp("s")
    with JsonlStore(directory / "e.jsonl", Episode) as store:
        for item in items:
            store.append(item)
        assert list(store) == items
        assert store.problems == []
    assert write_parquet(directory / "e.parquet", items) == len(items)
    back = list(read_parquet(directory / "e.parquet", Episode))
    assert back == items
    assert [b.model_dump_json() for b in back] == [i.model_dump_json() for i in items]  # 1 and 1.0, True and 1 differ


HERE = str(Path(__file__).parent)
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import episode
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.trajectory import Episode
with JsonlStore(Path(sys.argv[1]), Episode) as store:
    n = len(list(store))
    while True:
        store.append(episode(n, "y" * 20000))
        print(n, flush=True)
        n += 1
"""


def test_kill_9_loses_no_acknowledged_line_and_repeats_none(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    acknowledged: list[int] = []
    for delay in (0.0, 0.003, 0.01, 0.03, 0.07):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), HERE], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged.append(int(process.stdout.readline()))
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    store = JsonlStore(path, Episode)
    cut = store.recover()
    found = [int(item.episode_id[1:]) for item in store]
    assert cut == b"" or not cut.endswith(b"\n")
    assert found == list(range(len(found)))
    assert sorted(set(acknowledged)) == acknowledged
    assert set(acknowledged) <= set(found)
    assert store.problems == []


@pytest.mark.parametrize("keep", range(1, 400, 23))
def test_torn_last_line_is_cut_and_kept_beside(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "e.jsonl"
    items = write(path, 3)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    keep = min(keep, len(last) - 2)
    path.write_bytes(whole[: -len(last)] + last[:keep])
    with JsonlStore(path, Episode) as store:
        assert list(store) == items[:2]
        assert store.problems[0].startswith(f"{path}:3: ")
        assert "half a line" in store.problems[0]
        store.append(items[2])
        assert list(store) == items
    assert path.read_bytes() == whole
    assert (tmp_path / "e.jsonl.torn").read_bytes() == last[:keep] + b"\n"


def test_recover_completes_a_missing_newline_and_touches_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    store = JsonlStore(path, Episode)
    assert store.recover() == b""
    items = write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert list(store) == items
    assert store.recover() == b""
    assert path.read_bytes() == whole
    assert store.recover() == b""
    assert path.read_bytes() == whole
    assert not (tmp_path / "e.jsonl.torn").exists()


def test_unparseable_last_line_with_newline_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    write(path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 70_000 + b"\n")
    assert JsonlStore(path, Episode).recover() == b"\0" * 70_000 + b"\n"
    assert path.read_bytes() == whole


def test_corrupt_lines_are_reported_by_number_and_nothing_else_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    items = write(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    unknown = json.loads(lines[0]) | {"sucess": True}
    bad = [b"{broken\n", b"\0\0\0\n", b"\xff\xfe{}\n", b"[1, 2]\n", json.dumps(unknown).encode() + b"\n", b"\n"]
    path.write_bytes(b"".join(b + good for b, good in zip(bad, lines, strict=True)))
    store = JsonlStore(path, Episode)
    assert list(store) == items
    assert [problem.split(": ")[0] for problem in store.problems] == [f"{path}:{n}" for n in (1, 3, 5, 7, 9)]
    for problem, words in zip(
        store.problems, ("Invalid JSON", "NUL", "not UTF-8", "object", "sucess: Extra inputs"), strict=True
    ):
        assert words in problem
    told: list[str] = []
    assert list(store.read(on_error=told.append)) == items
    assert len(told) == 5
    assert store.problems == []


def test_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel write short and then refuse, as a full disk does."""
    path = tmp_path / "e.jsonl"
    code = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_store import episode
        from r2v_core.errors import R2VError
        from r2v_core.runs.jsonl import JsonlStore
        from r2v_core.trajectory import Episode
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        store = JsonlStore(Path(sys.argv[1]), Episode)
        store.append(episode(0))
        try:
            store.append(episode(1, "y" * 20000))
        except R2VError as error:
            print(error)
        assert list(JsonlStore(store.path, Episode)) == [episode(0)]
        assert store.path.read_bytes().count(b"\\n") == 1 and store.path.read_bytes().endswith(b"\\n")
        store.append(episode(2))
        """
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), HERE], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert "can't append" in done.stdout
    store = JsonlStore(path, Episode)
    assert list(store) == [episode(0), episode(2)]
    assert store.problems == []


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), {1: 2}, (1,), "\ud800", object()])
def test_what_json_cannot_say_is_refused_before_writing(tmp_path: Path, value: object) -> None:
    item = episode(0)
    item.metadata["x"] = value
    with JsonlStore(tmp_path / "e.jsonl", Episode) as store, pytest.raises(R2VError, match=r"e\.jsonl"):
        store.append(item)
    assert not (tmp_path / "e.jsonl").exists()
    with pytest.raises(R2VError, match="metadata"):
        write_parquet(tmp_path / "e.parquet", [item])
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(R2VError, match=r"file/e\.jsonl"):
        JsonlStore(tmp_path / "file" / "e.jsonl", Episode).append(episode(0))
    with pytest.raises(R2VError, match=r"file/e\.parquet"):
        write_parquet(tmp_path / "file" / "e.parquet", [episode(0)])
    with pytest.raises(R2VError, match="not a file of records"):
        list(JsonlStore(tmp_path, Episode))


def test_parquet_answers_sql(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    items = [episode(n) for n in range(1500)]
    write_parquet(path, iter(items))
    rows = duckdb.sql(
        f"SELECT task_id, avg(success::int), sum(cost), min(n_steps), any_value(run_id) FROM '{path}' "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert rows == [("t0", 1.0, 37500.0, 1, "r"), ("t1", 0.0, 37500.0, 1, "r")]
    query = (
        f"SELECT action_hash, actions[1], steps->>'$[0].action', metadata->>'split' FROM '{path}' WHERE episode_id='e7'"
    )
    assert duckdb.sql(query).fetchall() == [(items[7].action_hash, "go 7", "go 7", "train")]


def test_parquet_of_other_records_and_of_none(tmp_path: Path) -> None:
    task = Task(
        task_id="a", template_id="b", benchmark="c", family="d", goal="e", split="test", max_steps=3, content="f",
        options={"x": [1, None]},
    )  # fmt: skip
    write_parquet(tmp_path / "t.parquet", [task])
    assert list(read_parquet(tmp_path / "t.parquet", Task)) == [task]
    write_parquet(tmp_path / "none.parquet", [])
    assert list(read_parquet(tmp_path / "none.parquet", Episode)) == []
    write_parquet(tmp_path / "none.parquet", [], Task)
    with pytest.raises(R2VError, match=r"none\.parquet.*Episode"):
        list(read_parquet(tmp_path / "none.parquet", Episode))
    with pytest.raises(R2VError, match="Task among Episode"):
        write_parquet(tmp_path / "mixed.parquet", [episode(0), task])
    with pytest.raises(R2VError, match="no such file"):
        list(read_parquet(tmp_path / "mixed.parquet", Episode))


def test_failed_parquet_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_parquet(path, [episode(0)])
    with pytest.raises(R2VError, match=r"e\.parquet"):
        write_parquet(path, [episode(1), episode(2).model_copy(update={"seed": 2**70})])
    assert list(read_parquet(path, Episode)) == [episode(0)]
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(R2VError, match=r"e\.parquet"):
        list(read_parquet(path, Episode))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.parquet"]
