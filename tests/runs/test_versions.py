"""Records carry versions: older ones are carried forward on reading, newer ones refused in a line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from r2v_core import migrations
from r2v_core.benchmarks.base import Task
from r2v_core.errors import R2VError
from r2v_core.models.router import RouterRow
from r2v_core.registry import DataRegistry
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import MANIFEST_NAME, RunManifest, read_manifest
from r2v_core.runs.parquet import read_parquet, write_parquet
from r2v_core.runs.spec import StageSpec, read_spec
from r2v_core.training.preferences import CandidateRow
from r2v_core.trajectory import Episode, episodes_digest

EPISODE: dict[str, Any] = {
    "episode_id": "e1", "benchmark": "textworld", "task_id": "t", "template_id": "t", "goal": "g", "success": True,
    "steps": [{"index": 0, "observation": {"state": "s"}, "action": "go", "actor": "teacher"}],
    "metadata": {"run_id": "r", "split": "train"},
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "run_id": "r", "stage": "collect", "benchmark": "textworld", "provider": "env", "model": "expert", "seed": 1,
    "partition": "textworld:expert|1", "status": "done", "created_at": "2026-01-01T00:00:00Z", "output_dir": "r",
}  # fmt: skip


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in which an episode is of version 2: 'task' became 'task_id', 'notes' (nested) became 'metadata'."""

    def rename(values: dict[str, Any]) -> dict[str, Any]:
        names = {"task": "task_id", "notes": "metadata"}
        return {names.get(name, name): value for name, value in values.items()}

    monkeypatch.setitem(migrations.MIGRATIONS, "Episode", {1: rename})


def old_episode() -> dict[str, Any]:
    return {{"task_id": "task", "metadata": "notes"}.get(k, k): v for k, v in EPISODE.items()}


@pytest.mark.usefixtures("later")
def test_an_older_line_is_migrated_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    text = json.dumps(old_episode()) + "\n" + json.dumps(old_episode() | {"schema_version": 1}) + "\n"
    path.write_text(text)
    store = JsonlStore(path, Episode)
    assert [e.task_id for e in store] == ["t", "t"] and not store.problems
    assert path.read_text() == text


@pytest.mark.usefixtures("later")
def test_an_older_parquet_file_is_migrated(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in old_episode().items()}
    said = {"record": "Episode", "schema_version": "1", "json": "steps,notes"}
    pq.write_table(pa.Table.from_pylist([row | {"n_steps": 1}]).replace_schema_metadata(said), tmp_path / "e.parquet")
    (episode,) = read_parquet(tmp_path / "e.parquet", Episode)
    assert (episode.task_id, episode.metadata["run_id"], episode.steps[0].action) == ("t", "r", "go")


@pytest.mark.usefixtures("later")
def test_old_fields_in_a_present_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        migrations.read_record(Episode, json.dumps(old_episode() | {"schema_version": 2}), tmp_path)


@pytest.mark.parametrize(("model", "fields"), [
    (Episode, EPISODE),
    (Task, {"task_id": "t", "template_id": "t", "benchmark": "b", "family": "f", "goal": "g", "split": "train",
            "max_steps": 3, "content": "c"}),
    (CandidateRow, {"episode_id": "e", "task_id": "t", "step": 0, "z": None, "prompt": "p", "candidates": []}),
    (RouterRow, {}),
])  # fmt: skip
def test_a_newer_line_is_refused_by_file_and_versions(tmp_path: Path, model: Any, fields: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(fields | {"schema_version": 99, "unheard_of": 1}) + "\n")
    with pytest.raises(R2VError) as error:
        list(JsonlStore(path, model))
    known = migrations.current_version(model.__name__)
    assert str(error.value) == (
        f"{path}:1: {model.__name__} of version 99, this program knows versions up to {known}; update r2v to read it"
    )


def test_every_line_says_its_version_and_no_digest_contains_it(tmp_path: Path) -> None:
    episode = Episode(**EPISODE)
    with JsonlStore(tmp_path / "e.jsonl", Episode) as store:
        store.append(episode)
    line = json.loads((tmp_path / "e.jsonl").read_text())
    assert line["schema_version"] == migrations.current_version("Episode")
    (again,) = store
    assert again == episode and "schema_version" not in episode.model_dump()
    assert episodes_digest([again]) == episodes_digest([Episode(**EPISODE)])


def test_a_newer_parquet_file_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "e.parquet"
    write_parquet(path, [Episode(**EPISODE)])
    table = pq.read_table(path)
    assert table.schema.metadata[b"schema_version"] == b"2"
    pq.write_table(table.replace_schema_metadata({"record": "Episode", "schema_version": "7"}), path)
    with pytest.raises(R2VError, match="Episode of version 7, this program knows versions up to 2"):
        list(read_parquet(path, Episode))


def test_a_manifest_of_the_first_version_has_no_variant(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(MANIFEST | {"schema_version": 1}))
    manifest = read_manifest(tmp_path)
    assert manifest == RunManifest(**MANIFEST) and manifest.variant == "" and manifest.artifact_digests == {}


@pytest.mark.parametrize("version", [migrations.current_version("RunManifest") + 1, 99])
def test_a_newer_manifest_hinders_no_other_run(tmp_path: Path, version: int) -> None:
    for name, found in (("new", version), ("old", 1)):
        (tmp_path / "data/runs" / name).mkdir(parents=True)
        values = MANIFEST | {"run_id": name, "schema_version": found} | ({"more": 1} if name == "new" else {})
        (tmp_path / "data/runs" / name / MANIFEST_NAME).write_text(json.dumps(values))
    report = DataRegistry(tmp_path).rebuild()
    line = f"{tmp_path}/data/runs/new/{MANIFEST_NAME}: RunManifest of version {version}, this program knows versions"
    assert report.n_runs == 1 and [p[: len(line)] for p in report.problems] == [line]


def test_a_version_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(MANIFEST | {"schema_version": 0}))
    with pytest.raises(R2VError, match="schema_version 0 of a RunManifest is not a version"):
        read_manifest(tmp_path)


def test_planned_runs_carry_a_version(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(R2VError, match=rf"{path}: StageSpec of version 99, this program knows versions up to 2"):
        read_spec(path)
    spec = StageSpec(stage="collect", partition="textworld:expert|1", provider="env", model="expert", run_id="r",
                     run_dir="/r", project="/p", config_path=None, config={}, fingerprint="f")  # fmt: skip
    path.write_text(spec.model_dump_json())
    assert read_spec(path) == spec and json.loads(path.read_text())["schema_version"] == 2
    path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in ("schema_version", "variant")})
    )
    assert read_spec(path) == spec


@pytest.mark.usefixtures("later")
def test_merging_old_and_new_keeps_both_readable(tmp_path: Path) -> None:
    for name, episode in (("a", old_episode()), ("b", EPISODE | {"schema_version": 2, "steps": [
        {"index": 0, "observation": {"state": "s"}, "action": "look", "actor": "teacher"}]})):  # fmt: skip
        directory = tmp_path / "data/runs" / name
        directory.mkdir(parents=True)
        (directory / MANIFEST_NAME).write_text(json.dumps(MANIFEST | {"run_id": name, "schema_version": 1}))
        (directory / "trajectories.jsonl").write_text(json.dumps(episode) + "\n")
    registry = DataRegistry(tmp_path)
    assert registry.rebuild().problems == []
    for suffix in ("jsonl", "parquet"):
        merged = registry.merge_runs(["a", "b"], tmp_path / f"m.{suffix}")
        assert [(e.task_id, e.actions) for e in merged.iter_episodes()] == [("t", ["go"]), ("t", ["look"])]


def test_an_older_unfinished_run_is_named_and_not_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from r2v_core.config.schema import PathsConfig
    from r2v_core.partition import Partition
    from r2v_core.runs.directories import find_resumable
    from r2v_core.stages.table import get_stage

    directory = tmp_path / "data/runs/r"
    directory.mkdir(parents=True)
    values = MANIFEST | {"status": "partial", "fingerprint": "f"}
    arguments = (tmp_path, PathsConfig(), get_stage("collect"), Partition.parse("textworld:expert|1"), "f")
    (directory / MANIFEST_NAME).write_text(json.dumps(values | {"schema_version": 1}))
    with caplog.at_level(logging.WARNING):
        assert find_resumable(*arguments) is None
    assert caplog.messages == [
        f"{directory / MANIFEST_NAME}: an unfinished run of version 1, this program writes version 3 and does not go "
        "on with it; its episodes can still be merged (r2v registry merge); a new run begins"
    ]
    (directory / MANIFEST_NAME).write_text(json.dumps(values | {"schema_version": 3}))
    found = find_resumable(*arguments)
    assert found is not None and found.directory == directory
