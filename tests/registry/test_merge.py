from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry, merged_run
from r2v_core.registry.database import read
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.parquet import write_parquet
from r2v_core.trajectory import Episode

from .conftest import MakeRun, make_episode


def reference(runs: Sequence[tuple[str, list[Episode]]]) -> tuple[list[Episode], dict[str, int]]:
    """The duplicate rule, written the slow way: runs come oldest first."""
    seen: set[str] = set()
    kept, counts = [], {}
    for run_id, episodes in runs:
        counts[run_id] = 0
        for episode in episodes:
            if episode.action_hash not in seen:
                seen.add(episode.action_hash)
                kept.append(episode)
                counts[run_id] += 1
    return kept, counts


actions = st.lists(st.text(st.sampled_from('ab"\\\n \x1fé😀'), max_size=2), max_size=2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.tuples(st.lists(actions, max_size=4), st.booleans(), st.booleans()), min_size=1, max_size=4),
    same_time=st.booleans(),
)
def test_merging_follows_the_duplicate_rule(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[tuple[list[list[str]], bool, bool]],
    same_time: bool,
) -> None:
    from r2v_core.runs.manifest import RunManifest, write_manifest

    project = tmp_path_factory.mktemp("project")
    registry = DataRegistry(project)
    data = []
    for i, (lists, parquet, only_parquet) in enumerate(runs):
        run_id = f"r{i}"
        episodes = [make_episode(run_id, k, a) for k, a in enumerate(lists)]
        directory = project / "data/runs" / run_id
        directory.mkdir(parents=True)
        if parquet or only_parquet:
            write_parquet(directory / "trajectories.parquet", episodes, Episode)
        if not only_parquet:
            lines = [json.dumps(e.model_dump(mode="json"), ensure_ascii=i % 2 == 0) for e in episodes]
            (directory / "trajectories.jsonl").write_text("\n\n".join(lines), encoding="utf-8")  # no last newline
        manifest = RunManifest(
            run_id=run_id, stage="collect", benchmark="b", provider="p", model="m", seed=0, partition="b:m|0",
            status="done", created_at=f"2026-01-0{1 if same_time else 9 - i}T00:00:00Z", output_dir="",
        )  # fmt: skip
        write_manifest(manifest, directory)
        registry.register(directory)
        data.append((run_id, episodes))
    expected, kept = reference(data if same_time else data[::-1])
    ids = [run_id for run_id, _ in data]
    if not expected:
        with pytest.raises(R2VError, match="nothing to merge"):
            registry.merge_runs(ids, project / "merged.jsonl")
        return
    assert list(registry.iter_episodes(ids)) == expected
    for suffix in ("jsonl", "parquet"):
        store = registry.merge_runs(ids, project / f"merged.{suffix}")
        assert list(store.iter_episodes()) == expected
        assert store.n_episodes == len(expected)
        assert store.kept == kept
        assert {i: store.kept[i] + store.dropped[i] for i in ids} == {i: len(e) for i, e in data}
    everything = registry.merge_runs(ids, project / "all.jsonl", deduplicate=False)
    assert everything.n_episodes == sum(len(episodes) for _, episodes in data)


def test_lines_are_copied_byte_for_byte(registry: DataRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    directory = make_run("a", [["x"], ["y"]])
    registry.register(directory)
    registry.merge_runs(["a", "a"], tmp_path / "new" / "merged.jsonl")
    assert (tmp_path / "new/merged.jsonl").read_bytes() == (directory / "trajectories.jsonl").read_bytes()


def test_what_can_not_be_merged_is_one_line(registry: DataRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    directory = make_run("a", [["x"], ["y"]])
    registry.register_all([directory, make_run("none")])
    output = tmp_path / "merged.jsonl"
    for run_ids, words in (
        ([], "empty"),
        (["none"], "nothing to merge"),
        (["a", "b"], "no run 'b'"),
        ("a", "pass a list"),
    ):
        with pytest.raises(R2VError, match=words) as caught:
            registry.merge_runs(run_ids, output)
        assert "\n" not in str(caught.value)
    with pytest.raises(R2VError, match=r"use \.jsonl or \.parquet"):
        registry.merge_runs(["a"], tmp_path / "merged.csv")
    with pytest.raises(R2VError, match="one of the files to be merged"):
        registry.merge_runs(["a"], directory / "trajectories.jsonl")
    assert list(tmp_path.glob("*merge*")) == []


@pytest.mark.parametrize("damage", ["shorter", "shifted", "gone"])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_source_that_changed_is_noticed(
    registry: DataRegistry, make_run: MakeRun, tmp_path: Path, damage: str, suffix: str
) -> None:
    directory = make_run("a", [["x"], ["y"]])
    registry.register(directory)
    output = tmp_path / f"merged.{suffix}"
    output.write_text("old")
    path = directory / "trajectories.jsonl"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-5] if damage == "shorter" else b" " + content)
    with pytest.raises(R2VError, match="r2v registry doctor") as caught:
        registry.merge_runs(["a"], output)
    assert str(path) in str(caught.value)
    assert output.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_merge_as_a_run(registry: DataRegistry, make_run: MakeRun, project: Path) -> None:
    registry.register_all([make_run("a", [["x"], ["y"]]), make_run("b", [["x"], ["z"]], model="gpt", seed=2)])
    run = registry.merge_to_run(where="stage = 'collect' AND status = 'done'", tags=["mix"])
    assert (run.stage, run.model, run.seed, run.n_episodes, run.n_success) == ("merge", "expert+gpt", 1, 3, 1)
    assert [(i.role, i.run_id) for i in run.inputs] == [("source", "a"), ("source", "b")]
    counts = json.loads((project / run.output_dir / "merge.json").read_text())["runs"]
    assert counts == {
        "a": {"kept": 2, "dropped": 0, "held_out": 0},
        "b": {"kept": 1, "dropped": 1, "held_out": 0},
    }
    assert len(list(JsonlStore(project / run.output_dir / "trajectories.jsonl", Episode))) == 3
    again = registry.merge_to_run(["b", "a"])
    assert again.digest == run.digest and again.run_id != run.run_id
    assert registry.merge_to_run(["a"]).digest != run.digest
    assert registry.query(tag="mix")[0].run_id == run.run_id
    for bad, words in (({}, "either"), ({"where": "1 = 0"}, "no run meets"), ({"run_ids": []}, "empty")):
        with pytest.raises(R2VError, match=words):
            registry.merge_to_run(**bad)  # type: ignore[arg-type]


def test_a_merge_that_would_leak_test_tasks_is_refused(registry: DataRegistry, make_run: MakeRun) -> None:
    other = make_episode("b", 0, ["z"])
    other = other.model_copy(update={"metadata": other.metadata | {"split": "test"}})
    registry.register_all([make_run("a", [["x"]]), make_run("b", episodes=[other])])
    conflicts = registry.split_conflicts(["a", "b"])
    assert [list(c["splits"]) for c in conflicts] == [["test", "train"]]
    with pytest.raises(R2VError, match="'template-0' in test and train"):
        registry.merge_to_run(["a", "b"])


def test_unfinished_runs_are_not_merged_into_a_run(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register(make_run("a", [["x"]], status="running"))
    with pytest.raises(R2VError, match="run 'a' is running"):
        registry.merge_to_run(["a"])


def test_held_out_templates_are_left_out_before_duplicates_are_looked_for(
    registry: DataRegistry, make_run: MakeRun, project: Path
) -> None:
    held = make_episode("a", 0, ["x"], template_id="held")
    registry.register_all([make_run("a", episodes=[held]), make_run("b", [["x"], ["y"]], seed=2)])
    with read(registry.path) as con:
        merge = merged_run.prepare(con, project, ["a", "b"], held_out=["held", "another"])
        plain = merged_run.prepare(con, project, ["a", "b"], held_out=["another"])
        nothing = merged_run.prepare(con, project, ["a"], held_out=["held"])
    assert merge.counts == {
        "a": {"kept": 0, "dropped": 1, "held_out": 1},
        "b": {"kept": 2, "dropped": 0, "held_out": 0},
    }
    assert plain.counts["a"]["kept"] == 1 and plain.digest != merge.digest
    assert nothing.n_episodes == 0
    directory = merged_run.write(merge, project, project / "data/runs", title="trajectories")
    assert [e.metadata["run_id"] for e in JsonlStore(directory / "trajectories.jsonl", Episode)] == ["b", "b"]


def test_copies_follow_the_trajectories_that_were_kept(
    registry: DataRegistry, make_run: MakeRun, project: Path
) -> None:
    def copies(run_id: str, source: str, n: int) -> list[Episode]:
        metadata = {"run_id": run_id, "source_run_id": source, "split": "train"}
        return [
            make_episode(run_id, i, ["same"], episode_id=f"e{i}~z{z}", perturbation_seed=z,
                         metadata=metadata | {"source_episode_id": f"e{i}"})
            for i in range(n) for z in (7, 8)
        ]  # fmt: skip

    registry.register_all(
        [
            make_run("a", [["x"], ["y"]]),
            make_run("b", [["x"], ["z"]], seed=2),
            make_run("pa", episodes=copies("pa", "a", 2), stage="perturb", parquet=True),
            make_run("pb", episodes=copies("pb", "b", 2), stage="perturb"),
        ]
    )
    with read(registry.path) as con:
        clean = merged_run.prepare(con, project, ["a", "b"])
        merge = merged_run.prepare(con, project, ["pa", "pb"], deduplicate=False, copies_of=clean)
    directory = merged_run.write(merge, project, project / "data/runs")
    kept = [(e.metadata["source_run_id"], e.episode_id) for e in JsonlStore(directory / "trajectories.jsonl", Episode)]
    assert kept == [("a", "e0~z7"), ("a", "e0~z8"), ("a", "e1~z7"), ("a", "e1~z8"), ("b", "e1~z7"), ("b", "e1~z8")]
    registry.register(directory)
    rows = registry.sql("SELECT source_run_id, source_episode_id FROM episodes WHERE run_id = ?", [directory.name])
    assert set(rows["source_run_id"]) == {"a", "b"} and set(rows["source_episode_id"]) == {"e0", "e1"}


def test_a_merge_that_fails_leaves_nothing_behind(registry: DataRegistry, make_run: MakeRun, project: Path) -> None:
    directory = make_run("a", [["x"], ["y"]])
    registry.register(directory)
    (directory / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(R2VError, match="r2v registry doctor"):
        registry.merge_to_run(["a"])
    assert [path.name for path in (project / "data/runs").iterdir()] == ["a"]


def test_copies_of_nobody_knows_what_are_not_left_out_silently(
    registry: DataRegistry, make_run: MakeRun, project: Path
) -> None:
    registry.register_all([make_run("a", [["x"]]), make_run("pa", [["x"]], stage="perturb")])
    with read(registry.path) as con:
        clean = merged_run.prepare(con, project, ["a"])
        with pytest.raises(R2VError, match="run 'pa': the registry does not say"):
            merged_run.prepare(con, project, ["pa"], copies_of=clean)
