from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.registry.doctor import mark_partial
from r2v_core.runs.manifest import read_manifest, write_manifest

from .conftest import MakeRun


def kinds(registry: DataRegistry) -> list[tuple[str, str | None]]:
    return [(finding.kind, finding.run_id) for finding in registry.doctor()]


def test_a_healthy_registry(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register_all([make_run("a", [["x"]], parquet=True), make_run("t", root="outputs/train_bc")])
    assert kinds(registry) == []


def test_each_disease(registry: DataRegistry, make_run: MakeRun, project: Path) -> None:
    names = ("gone", "no_file", "longer", "swapped", "moved_on", "miscounted")
    directories = {name: make_run(name, [["x"], ["y"]]) for name in names}
    miscounted = read_manifest(directories["miscounted"]).model_copy(update={"n_episodes": 7})
    write_manifest(miscounted, directories["miscounted"])
    registry.register_all(list(directories.values()))
    shutil.rmtree(directories["gone"])
    (directories["no_file"] / "trajectories.jsonl").unlink()
    with (directories["longer"] / "trajectories.jsonl").open("a") as handle:
        handle.write("{}\n")
    swapped = directories["swapped"] / "trajectories.jsonl"
    swapped.write_bytes(swapped.read_bytes().replace(b"apple", b"pearl"))
    write_manifest(read_manifest(directories["moved_on"]).model_copy(update={"notes": "new"}), directories["moved_on"])
    make_run("unknown", [["x"]])
    (make_run("torn") / "run_manifest.json").write_text("{")
    (project / "data/.merged.jsonl.1.merge.tmp").write_text("half")
    (project / "data/runs/merge_x").mkdir()
    assert sorted(kinds(registry), key=str) == sorted(
        [
            ("missing_files", "gone"),
            ("missing_files", "no_file"),
            ("changed_files", "longer"),
            ("changed_files", "swapped"),
            ("outdated", "moved_on"),
            ("wrong_count", "miscounted"),
            ("unregistered", "unknown"),
            ("broken_manifest", None),
            ("interrupted_merge", None),
            ("interrupted_merge", "merge_x"),
        ],
        key=str,
    )
    assert ("changed_files", "swapped") not in [(f.kind, f.run_id) for f in registry.doctor(check_digests=False)]


def test_dead_runs_are_told_from_live_ones_and_marked(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("a", [["x"]], status="running")
    registry.register(directory)
    with FileLock(directory / ".lock"):
        assert kinds(registry) == []
        with pytest.raises(R2VError, match="is still writing this run"):
            mark_partial(directory)
    assert kinds(registry) == [("dead_run", "a")]
    assert mark_partial(directory).status == "partial"
    registry.register(directory)
    assert kinds(registry) == []
    with pytest.raises(R2VError, match="not running"):
        mark_partial(directory)


def test_a_run_on_another_machine_is_dead_only_when_it_is_still(registry: DataRegistry, make_run: MakeRun) -> None:
    import os

    directory = make_run("a", [["x"]], status="running", host="node17")
    registry.register(directory)
    assert kinds(registry) == []
    for file in directory.iterdir():
        os.utime(file, (1, 1))
    assert kinds(registry) == [("dead_run", "a")]


def test_squeue_is_asked_about_jobs(
    registry: DataRegistry, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(make_run("a", [["x"]], status="running", host="node17", slurm_job_id="5"))
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho RUNNING\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert kinds(registry) == []
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n")
    assert kinds(registry) == [("dead_run", "a")]
