"""Merges can't leak: training data are collected and perturbed trajectories of the training split, unless asked."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry, TrajectoryStore
from r2v_core.registry.cli import registry_app
from r2v_core.trajectory import Episode, Metadata

from .conftest import MakeRun, make_episode


@pytest.fixture
def study(registry: DataRegistry, make_run: MakeRun) -> DataRegistry:
    """Two collected episodes, one perturbed copy, three of an evaluation, one collected in the test split."""

    def named(run_id: str, number: int, actions: list[str], split: str | None = "train") -> Episode:
        metadata = {"run_id": run_id, "teacher_provider": "env", "teacher_model": "expert"}
        return make_episode(run_id, number, actions, metadata=metadata | ({"split": split} if split else {}))

    registry.register_all([
        make_run("c", episodes=[named("c", 1, ["a"]), named("c", 2, ["b"], None), named("c", 3, ["x"], "test")]),
        make_run("p", stage="perturb", episodes=[named("p", 4, ["c"])]),
        make_run("e", stage="evaluate_noisy", episodes=[named("e", n, [f"e{n}"], "test") for n in range(3)]),
        make_run("t", stage="train_bc"),
    ])  # fmt: skip
    return registry


LINE = (
    "left out: 1 episode of split test, 3 episodes of stage evaluate_noisy; to take them, name their stages and splits"
)


def test_a_merge_of_everything_holds_training_data_only(
    study: DataRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [run.run_id for run in study.query(benchmark="textworld", status="done")]
    assert set(ids) == {"c", "p", "e", "t"}
    with caplog.at_level(logging.WARNING):
        assert [e.episode_id for e in study.iter_episodes(ids)] == ["e1", "e2", "e4"]
    assert caplog.messages == [LINE]
    for suffix in ("jsonl", "parquet"):
        store = study.merge_runs(ids, tmp_path / f"m.{suffix}")
        assert [e.episode_id for e in store] == ["e1", "e2", "e4"] and len(store) == 3
        assert store.left_out == {"stage evaluate_noisy": 3, "split test": 1}
        assert store.kept == {"c": 2, "p": 1} and store.dropped == {"c": 0, "p": 0}
    run = study.merge_to_run(where="status = 'done'")
    assert run.n_episodes == 3 and {item.run_id for item in run.inputs} == {"c", "p"}
    assert run.counts["left_out"] == 1


def test_other_stages_and_splits_come_when_they_are_named(study: DataRegistry) -> None:
    def ids(**asked: list[str] | None) -> list[str]:
        return [e.episode_id for e in study.iter_episodes(["c", "p", "e"], **asked)]

    assert ids(stages=["evaluate_noisy"], splits=["test"]) == ["e0", "e1", "e2"]
    assert ids(stages=["collect"]) == ["e1", "e2"]
    assert ids(splits=["train", "test"]) == ["e1", "e2", "e3", "e4"]
    assert len(ids(stages=None, splits=None)) == 7
    with pytest.raises(
        R2VError, match="none of the 1 runs is of collect or import or perturb; left out: 3 episodes of stage"
    ):
        study.iter_episodes(["e"])
    with pytest.raises(R2VError, match=r"stages is one text \('collect'\); pass a list"):
        study.iter_episodes(["c"], stages="collect")


def test_a_merge_of_evaluations_stays_one(study: DataRegistry) -> None:
    run = study.merge_to_run(["e"], stages=["evaluate_noisy"], splits=None)
    with pytest.raises(R2VError, match="stage evaluate_noisy"):
        study.iter_episodes([run.run_id])
    assert len(list(study.iter_episodes([run.run_id], stages=["evaluate_noisy"], splits=None))) == 3


def test_the_command_says_what_it_left_out(study: DataRegistry, tmp_path: Path) -> None:
    where = ["--project", str(study.project), "--where", "status = 'done'"]
    done = CliRunner().invoke(registry_app, ["merge", *where, "--output", str(tmp_path / "m.jsonl"), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["n_episodes"] == 3
    options = ["--stage", "evaluate_noisy", "--split", "test"]
    done = CliRunner().invoke(
        registry_app, ["merge", *where, *options, "--output", str(tmp_path / "m.jsonl"), "--json"]
    )
    assert json.loads(done.stdout)["n_episodes"] == 3


def test_metadata_reads_as_attributes_and_is_a_mapping_on_disk(study: DataRegistry) -> None:
    episode = next(study.iter_episodes(["c"]))
    metadata = episode.metadata
    assert isinstance(metadata, Metadata)
    assert (metadata.run_id, metadata.teacher_model, metadata.teacher_provider) == ("c", "expert", "env")
    assert episode.model_dump(mode="json")["metadata"] == dict(metadata)
    with pytest.raises(AttributeError, match="no 'cost' in this episode's metadata; it has run_id, teacher_provider"):
        _ = metadata.cost
    assert not hasattr(metadata, "cost")


def test_a_summary_prints_as_a_table(
    study: DataRegistry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print(study.summary())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 runs, 7 episodes (7 unique), $0.00"
    assert [line.split()[0] for line in lines if "textworld" in line] == [
        "collect", "evaluate_noisy", "perturb", "train_bc"
    ]  # fmt: skip
    assert study.summary()["runs"] == 4


def test_a_trajectory_store_reads_a_file_of_episodes(study: DataRegistry, tmp_path: Path) -> None:
    path = study.project / "data/runs/c/trajectories.jsonl"
    store = TrajectoryStore(path)
    assert [e.episode_id for e in store] == ["e1", "e2", "e3"] and len(store) == 3
    (tmp_path / "bad.jsonl").write_bytes(path.read_bytes() + b'{"episode_id": 1}\n')
    with pytest.raises(R2VError, match=r"bad\.jsonl:4: "):
        list(TrajectoryStore(tmp_path / "bad.jsonl"))
    with pytest.raises(R2VError, match="no such file of episodes"):
        list(TrajectoryStore(tmp_path / "none.jsonl"))
