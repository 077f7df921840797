from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import read_manifest, write_manifest
from r2v_core.trajectory import Step

from .conftest import MakeRun, dump, make_episode


def test_a_run_becomes_rows_and_comes_back_whole(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("a", [["x", "y"], ["z"]], tags=["paper"], counts={"auc": float("nan")}, notes="é")
    manifest = registry.register(directory)
    assert manifest == registry.get_run("a").model_copy(update={"counts": manifest.counts})
    assert (manifest.run_id, manifest.n_episodes, manifest.success_rate) == ("a", 2, 0.5)
    assert manifest.output_dir == "data/runs/a"
    rows = registry.sql("FROM episodes ORDER BY line").to_dict("records")
    stored = make_episode("a", 0, ["x", "y"])
    assert rows[0]["action_hash"] == stored.action_hash
    assert rows[0]["cost"] == 100.0
    assert rows[0]["path"] == "data/runs/a/trajectories.jsonl"
    with (directory / "trajectories.jsonl").open("rb") as handle:
        handle.seek(int(rows[1]["byte_offset"]))
        assert json.loads(handle.read(int(rows[1]["byte_length"])))["episode_id"] == "e1"


def test_registering_again_changes_nothing_and_writes_nothing(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("a", [["x"]], inputs=[("tasks", "t")])
    registry.register(directory)
    before, inode = dump(registry), registry.path.stat().st_ino
    registry.register(directory)
    assert dump(registry) == before
    assert registry.path.stat().st_ino == inode


def test_a_growing_run_is_followed_and_half_a_line_waits(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("a", [["x"]], status="running")
    registry.register(directory)
    with (directory / "trajectories.jsonl").open("a") as handle:
        handle.write(make_episode("a", 7, ["q"]).model_dump_json() + "\n" + '{"episode_id": "half')
    registry.register(directory)
    assert registry.sql("SELECT count(*) AS n FROM episodes")["n"][0] == 2
    write_manifest(read_manifest(directory).model_copy(update={"status": "done"}), directory)
    registry.register(directory)
    assert [row.status for row in registry.query()] == ["done"]


def test_broken_lines_are_passed_over_and_named(
    registry: DataRegistry, make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    directory = make_run("a", [["x"], ["y"]])
    path = directory / "trajectories.jsonl"
    good = path.read_bytes().splitlines(keepends=True)
    huge = make_episode("a", 9, ["z"], seed=2**70).model_dump_json().encode() + b"\n"
    tokens = good[0].replace(b'"tokens_in": 0', b'"tokens_in": 36893488147419103232')
    assert tokens != good[0]
    path.write_bytes(good[0] + b"{torn\n" + b"\xff\xfe\n" + b"\n" + huge + good[1] + tokens)
    registry.register(directory)
    assert list(registry.sql("SELECT line FROM episodes ORDER BY line")["line"]) == [1, 6]
    for line in (2, 3, 5, 7):
        assert f"trajectories.jsonl:{line}:" in caplog.text
    assert [e.episode_id for e in registry.iter_episodes(["a"])] == ["e0", "e1"]


def test_episode_columns(registry: DataRegistry, make_run: MakeRun, noisy_step: Step) -> None:
    episode = make_episode("a", 0, [], steps=[noisy_step], perturbation_seed=4)
    registry.register(make_run("a", episodes=[episode]))
    row = registry.sql("FROM episodes").to_dict("records")[0]
    assert list(row["perturbations"]) == ["tool_flakiness/timeout"]
    assert (row["perturbation_seed"], row["n_teacher_steps"], row["tokens_in"], row["split"]) == (4, 0, 3, "train")


def test_curves_evaluations_and_jobs(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("train", stage="train_bc", root="outputs/train_bc", slurm_job_id="17")
    (directory / "training_log.jsonl").write_text(
        '{"step": 1, "loss": 2.5, "note": "text"}\n{"step": 2, "loss": NaN, "learning_rate": 0.1}\n'
    )
    (directory / "evaluations.jsonl").write_text(
        '{"method": "r2v", "benchmark": "textworld", "condition": "noisy", "seed": null, "metric": "success_rate", '
        '"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 20}\n'
    )
    (directory / "slurm_job.json").write_text('{"job_id": "17", "state": "COMPLETED", "elapsed_s": 3, "other": [1]}')
    registry.register(directory)
    curve = registry.sql("SELECT step, name, value FROM metrics ORDER BY line, name")
    assert curve["name"].tolist() == ["loss", "learning_rate", "loss"]
    assert curve["value"][0] == 2.5
    row = registry.sql("FROM evaluations").to_dict("records")[0]
    assert (row["method"], row["value"], row["n"]) == ("r2v", 0.5, 20)
    job = registry.sql("SELECT *, detail->>'$.other[0]' AS other FROM slurm_jobs").to_dict("records")[0]
    assert (job["job_id"], job["run_id"], job["state"], job["other"]) == ("17", "train", "COMPLETED", "1")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run_manifest.json", None, "no run manifest"),
        ("run_manifest.json", "{", "not a valid run manifest"),
    ],
)
def test_bad_manifests_are_named(
    registry: DataRegistry, make_run: MakeRun, name: str, content: str | None, words: str
) -> None:
    directory = make_run("a", [["x"]])
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content)
    with pytest.raises(R2VError, match=words) as caught:
        registry.register(directory)
    assert str(directory / name) in str(caught.value)


def test_a_manifest_without_a_time_is_refused(registry: DataRegistry, make_run: MakeRun) -> None:
    with pytest.raises(R2VError, match="'yesterday' is not a time"):
        registry.register(make_run("a", created_at="yesterday"))


def test_one_bad_run_stops_the_whole_transaction(registry: DataRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(R2VError):
        registry.register_all([make_run("a", [["x"]]), tmp_path])
    assert len(registry.query()) == 0


def test_every_table_view_and_column_has_a_comment(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register(make_run("a"))
    for things, kind in (("duckdb_tables()", "table"), ("duckdb_views()", "view"), ("duckdb_columns()", "column")):
        bare = registry.sql(
            f"SELECT {kind}_name FROM {things} WHERE database_name = 'registry' AND NOT internal AND comment IS NULL"
        )
        assert bare.empty, bare


def test_a_rebuilt_registry_equals_the_old_one(registry: DataRegistry, make_run: MakeRun, project: Path) -> None:
    registry.register(make_run("a", [["x"], ["y"]], parquet=True))
    registry.register(make_run("m", stage="train_bc", root="outputs/train_bc", inputs=[("trajectories", "a")]))
    registry.register(make_run("elsewhere", [["q"]], root="scratch/runs"))
    (project / "outputs/train_bc/m/training_log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    registry.register(project / "outputs/train_bc/m")
    registry.merge_to_run(["a", "elsewhere"])
    before = dump(registry)
    report = registry.rebuild()
    assert (report.n_runs, report.problems) == (4, [])
    assert dump(registry) == before


def test_a_rebuild_leaves_out_what_is_broken_and_says_so(
    registry: DataRegistry, make_run: MakeRun, project: Path
) -> None:
    make_run("a", [["x"]])
    (make_run("b", [["x"]]) / "run_manifest.json").write_text("{}")
    shutil.copytree(project / "data/runs/a", project / "data/copies/a")
    report = registry.rebuild()
    assert report.n_runs == 1
    assert len(report.problems) == 2
    assert registry.get_run("a").output_dir == "data/runs/a"


def test_the_same_directory_twice_is_one_run(registry: DataRegistry, make_run: MakeRun) -> None:
    directory = make_run("a", [["x"], ["y"]])
    registry.register_all([directory, directory])
    assert registry.sql("SELECT count(*) AS n FROM episodes")["n"][0] == 2


def test_syncing_registers_what_is_new_or_changed_and_nothing_else(
    registry: DataRegistry, make_run: MakeRun, project: Path
) -> None:
    known, changed = make_run("known", [["x"]]), make_run("changed", [["y"]], status="running")
    registry.register_all([known, changed])
    inode = registry.path.stat().st_ino
    assert registry.sync().registered == []
    assert registry.path.stat().st_ino == inode
    write_manifest(read_manifest(changed).model_copy(update={"status": "done"}), changed)
    make_run("new", root="outputs/train_bc")
    (make_run("broken") / "run_manifest.json").write_text("{")
    make_run("late", created_at="whenever")
    shutil.copytree(known, project / "data" / "copy" / "known")
    report = registry.sync(["data", "outputs", "data/runs"])
    assert sorted(report.registered) == ["changed", "new"]
    assert len(report.problems) == 3 and any("is taken by data/runs/known" in problem for problem in report.problems)
    assert registry.get_run("known").output_dir == "data/runs/known"
    assert registry.get_run("changed").status == "done"


def test_problems_of_some_runs(registry: DataRegistry, make_run: MakeRun) -> None:
    directories = {name: make_run(name, [["x"]]) for name in ("good", "gone", "cut", "other")}
    registry.register_all(list(directories.values()))
    shutil.rmtree(directories["gone"])
    (directories["cut"] / "trajectories.jsonl").write_text("")
    digest = registry.get_run("good").digest
    found = registry.run_problems(dict.fromkeys((*directories, "unknown"), digest) | {"other": "another"})
    assert found["good"] == []
    for name, words in (
        ("gone", "manifest is gone"),
        ("cut", "has 0 bytes"),
        ("other", "was expected"),
        ("unknown", "does not know"),
    ):
        assert len(found[name]) == 1 and words in found[name][0]
