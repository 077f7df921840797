"""``data.merge``: several runs as one training input, resolved while planning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from r2v_core.benchmarks.base import Task
from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.registry import DataRegistry
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunInput, RunManifest, read_manifest, write_manifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.stages.experiments import load_config
from r2v_core.stages.merged_inputs import Request, make_merges
from r2v_core.stages.plan import plan
from r2v_core.trajectory import Episode, Observation, Step, episodes_digest

CONDITION = "benchmark = 'textworld' AND stage = 'collect' AND status = 'done'"
PARTITION = Partition.parse("textworld:expert|1")
Write = Callable[..., str]


def make_episode(run_id: str, template: str, actions: Sequence[str], z: int | None = None, **metadata: Any) -> Episode:
    steps = [
        Step(index=i, observation=Observation(state=f"{template} {z}"), action=action, actor="teacher")
        for i, action in enumerate(actions)
    ]
    return Episode(
        episode_id=f"{template}~e0" if z is None else f"{template}~e0~z{z}",
        benchmark="textworld", task_id=template, template_id=template, goal="g", steps=steps, success=True,
        perturbation_seed=z, metadata={"run_id": run_id, "split": "train", **metadata},
    )  # fmt: skip


@pytest.fixture
def write(project: Path) -> Write:
    """Writes a finished run by hand (nothing is registered) and returns its id."""

    def run(run_id: str, stage: str, seed: int, episodes: Sequence[Episode] = (), **fields: Any) -> str:
        directory = project / "data" / "runs" / run_id
        directory.mkdir(parents=True)
        artifacts = {}
        if episodes:
            with JsonlStore(directory / "trajectories.jsonl", Episode) as store:
                for episode in episodes:
                    store.append(episode)
            write_parquet(directory / "trajectories.parquet", episodes, Episode)
            artifacts = {"trajectories": "trajectories.jsonl", "episodes": "trajectories.parquet"}
        values: dict[str, Any] = {
            "run_id": run_id, "stage": stage, "benchmark": "textworld", "provider": "env", "model": "expert",
            "seed": seed, "partition": f"textworld:expert|{seed}", "status": "done", "artifacts": artifacts,
            "created_at": f"2026-01-0{seed}T00:00:00Z", "output_dir": f"data/runs/{run_id}",
            "digest": episodes_digest(episodes) if episodes else f"digest-{run_id}",
            "n_episodes": len(episodes), "n_success": len(episodes),
        }  # fmt: skip
        write_manifest(RunManifest(**(values | fields)), directory)
        return run_id

    return run


@pytest.fixture
def two_seeds(project: Path, write: Write) -> Path:
    """Collected and perturbed runs of two seeds, and the task suite of seed 1, which holds ``held`` out.

    Both seeds collect an episode ``shared~e0`` with the same actions; ids repeat across runs.
    """
    tasks = [
        Task(task_id=t, template_id=t, benchmark="textworld", family="f", goal="g", split=split, max_steps=5, content=t)
        for t, split in (("one", "train"), ("shared", "train"), ("held", "test"))
    ]
    write("suite", "task_suite", 1)
    with JsonlStore(project / "data/runs/suite/tasks.jsonl", Task) as store:
        for task in tasks:
            store.append(task)
    suite = read_manifest(project / "data/runs/suite")
    write_manifest(suite.model_copy(update={"artifacts": {"tasks": "tasks.jsonl"}}), project / "data/runs/suite")
    for seed, templates in ((1, ("one", "shared")), (2, ("shared", "two", "held"))):
        clean = [make_episode(f"c{seed}", t, ["go", t]) for t in templates]
        write(f"c{seed}", "collect", seed, clean)
        copies = [
            make_episode(f"p{seed}", t, ["go", t], z, source_run_id=f"c{seed}", source_episode_id=f"{t}~e0")
            for t in templates
            for z in (seed * 10, seed * 10 + 1)
        ]
        source = RunInput(role="trajectories", run_id=f"c{seed}", digest="d", path=f"data/runs/c{seed}")
        write(f"p{seed}", "perturb", seed, copies, inputs=[source])
    return project


def load(project: Path, merge: str | list[str]) -> LoadedConfig:
    """The small experiment with ``data.merge``."""
    value = merge if isinstance(merge, str) else json.dumps(merge)
    return load_config("configs/small.yaml", [f"data.merge={value}"], project)


def request(project: Path, merge: str | list[str]) -> Request:
    loaded = load(project, merge)
    return Request(
        roles=["trajectories", "perturbed"],
        merge=merge,
        partition=PARTITION.key,
        project=project,
        paths=loaded.config.paths,
        suite=project / "data/runs/suite",
    )


def contents(directory: Path) -> list[tuple[str, str, int | None]]:
    episodes = list(JsonlStore(directory / "trajectories.jsonl", Episode))
    return [(str(e.metadata["run_id"]), e.template_id, e.perturbation_seed) for e in episodes]


def test_planning_hands_the_stage_two_merged_runs(two_seeds: Path) -> None:
    spec = plan("train_bc", PARTITION, load(two_seeds, CONDITION), project=two_seeds)
    merged = {item.role: two_seeds / item.path for item in spec.inputs}
    assert contents(merged["trajectories"]) == [("c1", "one", None), ("c1", "shared", None), ("c2", "two", None)]
    assert contents(merged["perturbed"]) == [
        ("p1", "one", 10), ("p1", "one", 11), ("p1", "shared", 10), ("p1", "shared", 11), ("p2", "two", 20),
        ("p2", "two", 21),
    ]  # fmt: skip
    counts = json.loads((merged["trajectories"] / "merge.json").read_text())
    assert counts["where"] == CONDITION
    assert counts["runs"] == {
        "c1": {"kept": 2, "dropped": 0, "held_out": 0},
        "c2": {"kept": 1, "dropped": 2, "held_out": 1},
    }
    registry = DataRegistry(two_seeds)
    sources = registry.sql(
        "SELECT data_run_id FROM (SELECT upstream_run_id AS data_run_id FROM lineage WHERE run_id = ? AND role = "
        "'source') ORDER BY ALL",
        [merged["trajectories"].name],
    )
    assert sources["data_run_id"].tolist() == ["c1", "c2"]


def test_planned_again_nothing_new_is_made(two_seeds: Path) -> None:
    first = plan("train_bc", PARTITION, load(two_seeds, CONDITION), project=two_seeds)
    again = plan("train_verifier", PARTITION, load(two_seeds, ["c2", "c1"]), project=two_seeds)
    assert [(i.run_id, i.digest) for i in again.inputs] == [(i.run_id, i.digest) for i in first.inputs]
    assert len(list((two_seeds / "data/runs").glob("merge_*"))) == 2


def test_a_new_run_makes_a_new_merge_and_a_lost_one_is_made_again(two_seeds: Path, write: Write) -> None:
    wanted = request(two_seeds, CONDITION)
    first = make_merges(wanted)
    (first["trajectories"] / "trajectories.parquet").unlink()
    second = make_merges(wanted)
    assert second["trajectories"] != first["trajectories"] and second["perturbed"] == first["perturbed"]
    assert read_manifest(second["trajectories"]).digest == read_manifest(first["trajectories"]).digest
    write("c3", "collect", 3, [make_episode("c3", "three", ["go", "three"])])
    third = make_merges(wanted)
    assert read_manifest(third["trajectories"]).digest != read_manifest(second["trajectories"]).digest
    assert read_manifest(third["trajectories"]).n_episodes == 4


def test_a_merge_can_be_merged_and_given_by_hand(two_seeds: Path) -> None:
    DataRegistry(two_seeds).sync()
    curated = DataRegistry(two_seeds).merge_to_run(["c1", "c2"])
    made = make_merges(request(two_seeds, [curated.run_id]))
    assert [run for run, _, _ in contents(made["trajectories"])] == ["c1", "c1", "c2"]
    assert {run for run, _, _ in contents(made["perturbed"])} == {"p1", "p2"}
    given = {"trajectories": made["trajectories"], "perturbed": made["perturbed"]}
    plain = load_config("configs/small.yaml", (), two_seeds)
    spec = plan("train_bc", PARTITION, plain, project=two_seeds, inputs=given)
    assert [item.run_id for item in spec.inputs] == [made["trajectories"].name, made["perturbed"].name]
    with pytest.raises(R2VError, match="is a run of 'merge'; name one of 'collect' instead"):
        plan("train_bc", PARTITION, plain, project=two_seeds, inputs={"trajectories": made["perturbed"]})


def test_other_stages_keep_their_own_inputs(two_seeds: Path) -> None:
    spec = plan("perturb", PARTITION, load(two_seeds, CONDITION), project=two_seeds)
    assert [item.run_id for item in spec.inputs] == ["suite", "c1"]


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ("stage = 'collect' AND seed = 9", "no run meets"),
        ("seed = 1", "is of stage '(perturb|task_suite)'.*AND stage = 'collect'"),
        ("stage = 'other'", "is of benchmark 'humaneval'"),
        ("SELEC", "not a condition"),
        ("1=1; DROP TABLE runs", "write one SQL condition|not a SQL condition"),
        (["c1", "c7"], "no run 'c7'"),
        ([], "no runs given"),
        (["held_only"], "nothing is left"),
        (["bare"], "perturbed copies"),
        (["busy"], "is running"),
    ],
)
def test_what_can_not_be_learnt_from_is_one_line(
    two_seeds: Path, write: Write, merge: str | list[str], words: str
) -> None:
    write("held_only", "collect", 4, [make_episode("held_only", "held", ["x"])])
    write("bare", "collect", 4, [make_episode("bare", "bare", ["x"])])
    write("busy", "collect", 4, [make_episode("busy", "busy", ["x"])], status="running")
    write("alien", "collect", 4, [make_episode("alien", "a", ["x"])], benchmark="humaneval")
    if merge == "stage = 'other'":
        merge = ["alien"]
    with pytest.raises(R2VError, match=words) as caught:
        make_merges(request(two_seeds, merge))
    assert "\n" not in str(caught.value)
    assert not list((two_seeds / "data/runs").glob("merge_*"))


def test_planning_names_the_key(two_seeds: Path) -> None:
    with pytest.raises(R2VError, match=r"^data\.merge: no run 'c7'"):
        plan("train_bc", PARTITION, load(two_seeds, ["c7"]), project=two_seeds)
    with pytest.raises(R2VError, match="give one of them"):
        plan("train_bc", PARTITION, load(two_seeds, ["c1"]), project=two_seeds, inputs={"perturbed": Path("p")})
    with pytest.raises(R2VError, match="has no task suite"):
        plan("train_bc", Partition.parse("textworld:expert|2"), load(two_seeds, ["c1"]), project=two_seeds)
    with pytest.raises(R2VError, match=r"data\.merge \(override\): 5 is not possible; expected text or a list"):
        load(two_seeds, "5")
