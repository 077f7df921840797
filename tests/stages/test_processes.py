"""Records of several processes in one file, whatever was killed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from r2v_core.agent.live import Job
from r2v_core.benchmarks.base import Task
from r2v_core.runs import processes
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.stages.episodes import chunks


class Record(BaseModel):
    name: str


def write(path: Path, *names: str) -> None:
    with JsonlStore(path, Record) as store:
        for name in names:
            store.append(Record(name=name))


def names(path: Path) -> list[str]:
    return [record.name for record in JsonlStore(path, Record)]


def test_helpers_records_are_gathered_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, "a", "c")
    write(tmp_path / "records.part1.jsonl", "b", "c")  # c: an earlier gathering was killed half-way
    write(tmp_path / "records.part2.jsonl", "d")
    with (tmp_path / "records.part2.jsonl").open("ab") as torn:
        torn.write(b'{"name": "tor')
    processes.merge_rank_files(path, Record, lambda record: record.name)
    assert names(path) == ["a", "c", "b", "d"]
    assert sorted(tmp_path.glob("*.jsonl")) == [path]
    processes.merge_rank_files(path, Record, lambda record: record.name)
    assert names(path) == ["a", "c", "b", "d"]


def test_a_helper_writes_beside_the_main_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    assert processes.rank_file(path) == path and processes.is_main() and processes.count() == 1
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes.rank_file(path) == tmp_path / "records.part2.jsonl" and not processes.is_main()


def test_one_process_needs_no_launcher() -> None:
    command = ("r2v_core.stages.collect",)
    assert processes.launch_arguments(command, 1) == processes.launch_arguments(command, 0) == command
    assert "--num_processes=2" in processes.launch_arguments(command, 2)


def job(task: int, z: int, method: int) -> Job:
    found = Task(
        benchmark="b",
        task_id=f"t{task}",
        template_id=f"t{task}",
        split="test",
        goal="",
        max_steps=5,
        family="f",
        content="",
    )
    return Job(f"{method}~{z}~{task}", found, z=z, method=str(method))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 30))
def test_chunks_are_all_jobs_in_order_and_keep_methods_together(
    tasks: int, seeds: int, methods: int, size: int
) -> None:
    jobs = [job(task, z, method) for z in range(seeds) for task in range(tasks) for method in range(methods)]
    found = list(chunks(jobs, size))
    assert [one for chunk in found for one in chunk] == jobs
    assert all(len(chunk) >= size for chunk in found[:-1])
    places = [{(one.task.task_id, one.z) for one in chunk} for chunk in found]
    assert sum(map(len, places)) == len(set.union(*places))
