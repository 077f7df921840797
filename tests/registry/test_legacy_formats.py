"""Old registries as people's tools wrote them: read, or said what is not, never silently something else."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from r2v_core.registry import DataRegistry
from r2v_core.registry.legacy_times import parse_time

from .test_legacy import ENTRY, OLD_EPISODE, RUN, lay_out

LINE = json.dumps(OLD_EPISODE)


@pytest.mark.parametrize(("written", "meant"), [
    (1735787045, "2025-01-02T03:04:05"),
    (1735787045000, "2025-01-02T03:04:05"),
    ("1735787045000", "2025-01-02T03:04:05"),
    (1735787045000000, "2025-01-02T03:04:05"),
    ("01/02/2025 03:04 PM", "2025-01-02T15:04:00"),
    ("2025-01-02 03:04:05 UTC", "2025-01-02T03:04:05"),
    ("2025-01-02 03:04:05 EST", "2025-01-02T08:04:05"),
    ("2025-07-02 03:04:05 Europe/Berlin", "2025-07-02T01:04:05"),
    ("01/02/2025 03:04 PM PST", "2025-01-02T23:04:00"),
    ("2025-01-02T03:04:05Z", "2025-01-02T03:04:05"),
    ("2025-01-02", "2025-01-02T00:00:00"),
])  # fmt: skip
def test_times(written: Any, meant: str) -> None:
    assert parse_time(written) == datetime.fromisoformat(meant)


@pytest.mark.parametrize(
    "written", ["yesterday", "13/13/2025 03:04 PM", "2025-01-02 03:04 XYZ", True, {}, "nan", 1e999]
)
def test_what_is_no_time(written: Any) -> None:
    assert parse_time(written) is None


def test_a_time_that_is_not_understood_is_said(registry: DataRegistry, project: Path) -> None:
    path = lay_out(project, {RUN: ENTRY | {"timestamp": "yesterday", "seed": 1.5}}, [LINE])
    report = registry.import_legacy(path)
    assert report.problems == [
        f"{path}: run '{RUN}': created_at 'yesterday' is not a time that can be read (write ISO 8601); the time in its "
        "id, or its file's, is taken",
        f"{path}: run '{RUN}': seed 1.5 is not a whole number; 0 is used instead",
    ]
    assert registry.get_run(RUN).created_at.startswith("2025-01-02T03:04:05")


def test_epoch_milliseconds_and_zone_names_of_a_run(registry: DataRegistry, project: Path) -> None:
    entry = ENTRY | {"timestamp": 1735787045000, "finished_at": "2025-01-02 04:00 EST"}
    assert registry.import_legacy(lay_out(project, {RUN: entry}, [LINE])).problems == []
    run = registry.get_run(RUN)
    assert datetime.fromisoformat(run.created_at) == datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert run.finished_at == "2025-01-02T09:00:00.000000+00:00"


def test_byte_order_marks(registry: DataRegistry, project: Path) -> None:
    path = lay_out(project, {RUN: ENTRY | {"n_episodes": 2}}, [LINE, LINE])
    for file in (path, project / "data/runs" / RUN / "trajectories.jsonl"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    report = registry.import_legacy(path)
    assert (report.episodes, report.problems) == ({RUN: 2}, [])
    assert len(list(registry.iter_episodes([RUN], deduplicate=False))) == 2


@pytest.mark.parametrize("names", [
    ("trajectories.jsonl.gz",), ("trajectories-00000.jsonl", "trajectories-00001.jsonl"),
    ("episodes_0.jsonl.gz", "episodes_1.jsonl.gz"),
    ("trajectories-00000-of-00002.jsonl", "trajectories-00001-of-00002.jsonl"),
])  # fmt: skip
def test_compressed_files_and_shards(registry: DataRegistry, project: Path, names: tuple[str, ...]) -> None:
    path = lay_out(project, {RUN: ENTRY | {"n_episodes": 2 * len(names)}}, [LINE])
    folder = project / "data/runs" / RUN
    (folder / "trajectories.jsonl").unlink()
    for i, name in enumerate(names):
        lines = [json.dumps(OLD_EPISODE | {"episode_id": f"e{i}-{k}"}) for k in range(2)]
        content = "\n".join(lines).encode() + b"\n"
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    report = registry.import_legacy(path)
    assert (report.episodes, report.problems) == ({RUN: 2 * len(names)}, [])
    found = [e.episode_id for e in registry.iter_episodes([RUN], deduplicate=False)]
    assert found == [f"e{i}-{k}" for i in range(len(names)) for k in range(2)]


def test_half_a_gzip_file_is_said(registry: DataRegistry, project: Path) -> None:
    path = lay_out(project, {RUN: ENTRY}, [LINE])
    folder = project / "data/runs" / RUN
    (folder / "trajectories.jsonl").unlink()
    (folder / "trajectories.jsonl.gz").write_bytes(gzip.compress((LINE + "\n").encode())[:-9])
    (problem, *_) = registry.import_legacy(path).problems
    assert "trajectories.jsonl.gz: can't be read to its end" in problem


@pytest.mark.parametrize(("record", "name"), [
    ({"messages": [{"role": "user", "content": "go"}], "success": True}, "chat format (messages)"),
    ({"conversations": [{"from": "human", "value": "go"}]}, "ShareGPT format (conversations)"),
    ({"trajectory": [{"action": "ls", "response": "r", "thought": "t", "observation": "o"}], "info": {}},
     "a SWE-agent trajectory (.traj)"),
])  # fmt: skip
def test_other_formats_are_refused_by_name(registry: DataRegistry, project: Path, record: Any, name: str) -> None:
    path = lay_out(project, {RUN: ENTRY}, [json.dumps(record), LINE])
    report = registry.import_legacy(path)
    file = project / "data/runs" / RUN / "trajectories.jsonl"
    assert report.problems == [f"{file}:1: {name} can't be read; write 'steps' with an action each, and 'success'"]
    assert report.episodes == {RUN: 1}


def test_a_folder_of_traj_files_is_refused_by_name(registry: DataRegistry, project: Path) -> None:
    path = lay_out(project, {RUN: ENTRY}, [LINE])
    folder = project / "data/runs" / RUN
    (folder / "trajectories.jsonl").unlink()
    (folder / "django-1.traj").write_text("{}")
    (problem,) = registry.import_legacy(path).problems
    assert "django-1.traj is a SWE-agent trajectory, which is not read" in problem
