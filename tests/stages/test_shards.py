"""Shards and processes that share a run: what they make together is what one process makes, whatever befell them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from r2v_core.agent.rules.lottery import RANDOM
from r2v_core.partition import Partition
from r2v_core.runs import processes
from r2v_core.runs.abandoned import end_partial
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.locks import LOCK_NAME, is_alive
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.stages import candidates, sharded
from r2v_core.stages.cli import main
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.table import ABLATIONS, STAGES
from r2v_core.trajectory import Episode
from tests.serving.conftest import stuck_router
from tests.stages.conftest import ROOT, environment
from tests.stages.stand_ins import stand_in_for_all

KEY = "textworld:expert|1"
CONFIG = """
defaults: [textworld/noisy]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny, cache: "{games}"}}
benchmark:
  max_steps: 4
  splits: {{train: 1, router: 1, validation: 1, test: 1}}
  options: {{goals: [detailed], mix: [{{family: custom, rooms: 2, objects: 4, quest_length: 2}}]}}
collection: {{episodes_per_task: 14, explore_all_episodes: 2}}
slm: {{engine: scripted, engine_options: {{otherwise: [look, inventory]}}}}
perturbations: {{seeds: {{train: 4, router: 9, validation: 8, test: 5}}}}
candidates: {{k: 2, batch_size: 4, max_states: 12}}
agent: {{verifier: false, parallel: 1}}
router_features: {{takeover_prob: 0.5}}
training:
  verifier: {{on_policy: {{episodes: 2, state_share: 0.4, continuations: 4}}}}
  router: {{baselines: [random_router]}}
evaluation: {{methods: [r2v, slm_only, random_router], sweep: [], noisy_seeds: 2}}
"""
RUN = ["--config", "configs/tiny.yaml", "--partition", KEY]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, games: Path) -> Path:
    """A project with all that the stages read; a script stands in for the policies."""
    root = tmp_path_factory.mktemp("shards")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(games=games))
    loaded = partition_config(Partition.parse(KEY), root / "configs/tiny.yaml", (), root)
    stand_in_for_all(root, loaded, KEY, replace(stuck_router(), rules={RANDOM.name: {"rate": 0.5}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_PROJECT", str(root))
        patch.chdir(root)
        for stage in ("task_suite", "collect", "perturb"):
            assert main(stage, RUN) == 0, stage
    return root


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Commands are given in the project."""
    monkeypatch.setenv("R2V_PROJECT", str(project))
    monkeypatch.chdir(project)
    yield monkeypatch


def play(patch: pytest.MonkeyPatch, shard: str, stage: str, run_id: str, *overrides: str) -> int:
    """Run one shard as an element of a job array does; its exit status."""
    with patch.context() as inner:
        inner.setenv(processes.SHARD, shard)
        return main(stage, [*RUN, "--run-id", run_id, *(["--overrides", *overrides] if overrides else [])])


def folder(project: Path, run_id: str) -> Path:
    (found,) = (path for path in project.glob(f"*/*/{run_id}") if path.is_dir())
    return found


def alone(project: Path, stage: str) -> RunManifest:
    """What one process makes, once for all tests."""
    made = list(project.glob(f"*/*/{stage}-alone/run_manifest.json"))
    return read_manifest(made[0].parent) if made else finish(project, stage, f"{stage}-alone")


def finish(project: Path, stage: str, run_id: str) -> RunManifest:
    """The stage's ordinary run, which gathers; its manifest."""
    assert main(stage, [*RUN, "--run-id", run_id]) == 0
    return read_manifest(folder(project, run_id))


@pytest.mark.parametrize(
    ("stage", "counts"),
    [
        ("collect", [1, 2]),
        ("policy_rollouts", [2]),
        ("candidates", [3]),
        ("router_features", [3]),
        ("evaluate_noisy", [3]),
    ],
)
def test_shards_make_what_one_process_makes(
    project: Path, inside: pytest.MonkeyPatch, stage: str, counts: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    inside.setattr(candidates, "_verifier", lambda ctx: None)  # which gives no scores
    expected = alone(project, stage)
    for count in counts:
        run_id = f"{stage}-by-{count}"
        for index in reversed(range(count)):
            assert play(inside, f"{index}/{count}", stage, run_id) == 0
        run_dir = folder(project, run_id)
        file = "candidates" if stage == "candidates" else "trajectories"
        parts = [path.read_text().count("\n") for path in run_dir.glob(f"{file}.part*.jsonl")]
        assert len(parts) == count and all(parts), parts
        ((what, (done, total)),) = sharded.progress(run_dir).items()
        assert done == total == sum(parts) > 0 and not (run_dir / "trajectories.jsonl").exists()
        shards = read_manifest(run_dir)
        assert shards.status == "running" and shards.wall_time_s > 0 and not is_alive(run_dir)
        capsys.readouterr()
        made = finish(project, stage, run_id)
        # what one process makes of all the rest, random_router's episodes, is left to the run that gathers
        assert f"{total} of {total} {what} are on disk already; 0 to go" in capsys.readouterr().err
        assert (made.status, made.digest, made.counts) == ("done", expected.digest, expected.counts)
        assert made.wall_time_s > shards.wall_time_s and not list(run_dir.glob("*.part*"))
        assert not (run_dir / "unfinished").exists()
        log = run_dir / "collection_log.jsonl"
        assert stage != "collect" or log.read_text().count("\n") == made.n_episodes


def test_replicates_meet_the_same_noise_and_draw_otherwise(project: Path, inside: pytest.MonkeyPatch) -> None:
    alone(project, "evaluate_noisy")
    played: dict[int, dict[int, Episode]] = defaultdict(dict)
    for one in JsonlStore(folder(project, "evaluate_noisy-alone") / "trajectories.jsonl", Episode):
        if one.metadata["method"] == "slm_only":
            assert one.perturbation_seed is not None
            played[one.perturbation_seed][one.metadata["replicate"]] = one
    assert len(played) == 5 and all(set(both) == {0, 1} for both in played.values())
    pairs = [(both[0].steps, both[1].steps) for both in played.values()]
    assert all(a[0].observation == b[0].observation and a[0].perturbations == b[0].perturbations for a, b in pairs)
    assert any([step.action for step in a] != [step.action for step in b] for a, b in pairs)


@pytest.mark.parametrize("stage", ["collect", "router_features"])
def test_two_processes_of_one_job_make_what_one_makes(project: Path, inside: pytest.MonkeyPatch, stage: str) -> None:
    expected = alone(project, stage)
    command = (f"r2v_core.stages.{stage}", *RUN, "--run-id", f"{stage}-by-both")
    both = [sys.executable, "-m", *processes.launch_arguments(command, 2)]
    done = subprocess.run(both, cwd=project, env=environment(project), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f"[{stage} 1] " in done.stderr, done.stderr  # the second process took its part
    run_dir = folder(project, f"{stage}-by-both")
    made = read_manifest(run_dir)
    assert (made.status, made.digest, made.counts) == ("done", expected.digest, expected.counts)
    assert (made.n_episodes, made.n_steps) == (expected.n_episodes, expected.n_steps)
    assert not list(run_dir.glob("*.part*"))


def test_a_shard_that_was_killed_one_that_never_began_and_another_number_of_them(
    project: Path, inside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of three shards of which one was killed in the middle of a record goes on as two, or is gathered."""
    expected = alone(project, "evaluate_noisy")
    for index in (0, 1):
        assert play(inside, f"{index}/3", "evaluate_noisy", "hurt") == 0
    run_dir = folder(project, "hurt")
    whole = (run_dir / "trajectories.partshard1.jsonl").read_bytes()
    (run_dir / "trajectories.partshard1.jsonl").write_bytes(whole[: len(whole) // 2])
    shutil.copytree(run_dir, run_dir.with_name("hurt-gathered"))
    text = json.dumps(json.loads((run_dir / "run_manifest.json").read_text()) | {"run_id": "hurt-gathered"})
    (run_dir.with_name("hurt-gathered") / "run_manifest.json").write_text(text)
    before = sum(path.read_bytes().count(b"\n") for path in run_dir.glob("trajectories.part*.jsonl"))
    capsys.readouterr()
    for index in range(2):
        assert play(inside, f"{index}/2", "evaluate_noisy", "hurt") == 0
    (total,) = (total for _, total in sharded.progress(run_dir).values())
    assert "episodes are on disk already" in capsys.readouterr().err
    lines = [line for path in run_dir.glob("trajectories.part*.jsonl") for line in path.read_text().splitlines()]
    ids = [json.loads(line)["episode_id"] for line in lines]
    assert before < len(ids) == len(set(ids)) <= total
    for run_id in ("hurt", "hurt-gathered"):
        made = finish(project, "evaluate_noisy", run_id)
        assert (made.status, made.digest, made.counts) == ("done", expected.digest, expected.counts), run_id


def test_episodes_that_ended_in_an_error_are_played_again_where_they_lie(
    project: Path, inside: pytest.MonkeyPatch
) -> None:
    assert play(inside, "0/2", "collect", "errors") == 0
    part = folder(project, "errors") / "trajectories.partshard0.jsonl"
    first, *others = part.read_text().splitlines(keepends=True)
    hurt = json.loads(first)
    hurt["metadata"]["error"] = "the benchmark was away"
    part.write_text("".join([json.dumps(hurt) + "\n", *others]))
    none = "episodes.max_error_share=0"
    assert play(inside, "0/2", "collect", "errors", none) == 2
    assert play(inside, "0/2", "collect", "errors", none, "episodes.retry_errors=true") == 0
    assert "was away" not in part.read_text()
    assert finish(project, "collect", "errors").digest == alone(project, "collect").digest


def test_who_may_write_a_run_while_shards_do(
    project: Path, inside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(inside, "0/2", "collect", "locked") == 0
    run_dir = folder(project, "locked")
    with FileLock(run_dir / "unfinished" / "shard1.lock"):
        assert is_alive(run_dir) and end_partial(run_dir, "killed") is None
        assert main("collect", [*RUN, "--run-id", "locked"]) == 2
        assert "is being written by another process right now" in capsys.readouterr().err
        assert main("collect", RUN) == 2
        assert "run locked is making this already" in capsys.readouterr().err
        inside.setattr("r2v_core.runs.locks.LOCK_S", 0.1)
        assert play(inside, "1/2", "collect", "locked") == 2
        assert "shard 1 of run 'locked' is being written by another process" in capsys.readouterr().err
    with FileLock(run_dir / LOCK_NAME):
        inside.setattr(sharded, "OPENING_S", 0.1)
        assert play(inside, "1/2", "collect", "locked") == 2
        assert "run 'locked' is being written by another process" in capsys.readouterr().err
    assert finish(project, "collect", "locked").status == "done"


def test_what_is_no_shard_is_refused(inside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for shard, stage, said in (
        ("2/2", "collect", "R2V_SHARD=2/2: write <which>/<of how many>, counted from 0, e.g. 0/4"),
        ("two", "collect", "R2V_SHARD=two: write"),
        ("0/2", "task_suite", "stage 'task_suite' has no shards; unset R2V_SHARD"),
    ):
        assert play(inside, shard, stage, "refused") == 2
        assert said in capsys.readouterr().err
    with inside.context() as patch:
        patch.setenv(processes.SHARD, "0/2")
        assert main("collect", RUN) == 2
        assert "R2V_SHARD is set: name the run that all shards play with --run-id" in capsys.readouterr().err


def test_stages_that_play_have_shards_and_trainings_have_none() -> None:
    assert [stage.name for stage in (STAGES | ABLATIONS).values() if stage.sharded] == [
        "collect", "policy_rollouts", "candidates", "router_features", "evaluate_clean", "evaluate_noisy",
    ]  # fmt: skip
