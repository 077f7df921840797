"""Whole 'collect' stages with language models as teachers, on real TextWorld games."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.hub import resolve_model
from r2v_core.partition import Partition
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest, read_manifest
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.plan import plan
from r2v_core.stages.runner import execute
from r2v_core.training.examples import training_episodes
from r2v_core.trajectory import Episode, teacher_action
from tests.stages.conftest import environment
from tests.teachers.conftest import CANARY, ROOT
from tests.teachers.server import Server, fails, says

SMALL = """
defaults: [textworld/clean]
name: small
benchmark:
  max_steps: 4
  splits: {train: 1, router: 1, validation: 1, test: 1}
  options:
    goals: [detailed]
    mix: [{family: custom, rooms: 2, objects: 3, quest_length: 2}]
collection: {episodes_per_task: 2, explore_all_episodes: 0, explore_prob: 0.0, explore_start_steps: 2}
teacher: {limits: {attempts: 3, patience_s: 0, backoff_s: 0.001}}
paths: {cache: cache}
"""
Collect = Callable[..., RunManifest]


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose task suite and games the tests of this module share."""
    root = tmp_path_factory.mktemp("suite")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs" / "small.yaml").write_text(SMALL)
    partition = Partition("textworld", "expert", 1)
    loaded = partition_config(partition, "configs/small.yaml", [], root)
    execute(plan("task_suite", partition, loaded, project=root), Reporter("task_suite"))
    return root


@pytest.fixture
def collect(project: Path, games: Path, model_cache: Path) -> Collect:
    """Run the stage for a teacher of the project, in this process."""
    (project / "configs" / "small.yaml").write_text(SMALL)
    (project / "cache").mkdir()
    (project / "cache" / "games").symlink_to(games / "cache" / "games")
    (model_cache / "models").mkdir(exist_ok=True)
    (project / "cache" / "models").symlink_to(model_cache / "models")
    (suite,) = (games / "data" / "runs").glob("task_suite*")

    def run(teacher: str, *overrides: str, resume: bool = True) -> RunManifest:
        partition = Partition("textworld", teacher, 1)
        spec = plan(
            "collect",
            partition,
            partition_config(partition, "configs/small.yaml", overrides, project),
            project=project,
            inputs={"tasks": suite},
            resume=resume,
        )
        return execute(spec, Reporter("collect"))

    return run


def episodes(project: Path, manifest: RunManifest) -> list[Episode]:
    return list(JsonlStore(project / manifest.output_dir / "trajectories.jsonl", Episode))


def by_hand(project: Path, games: Path, teacher: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The stage as a user starts it."""
    (suite,) = (games / "data" / "runs").glob("task_suite*")
    command = [sys.executable, "-m", "r2v_core.stages.collect", "--config", "configs/small.yaml"]
    command += ["--partition", f"textworld:{teacher}|1", "--input", f"tasks={suite}"]
    command += ["--overrides", *overrides] if overrides else []
    return subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=600)


def test_a_refused_request_ends_its_episode_and_not_the_run(project: Path, collect: Collect, server: Server) -> None:
    server.script.append(fails(400, "context too long"))
    manifest = collect("mine", "teacher.limits.concurrency=1")
    first, second = episodes(project, manifest)
    assert manifest.status == "done" and manifest.counts["errors"] == 1
    failed, whole = (first, second) if first.error else (second, first)
    assert str(failed.error).startswith("teacher: ") and "status 400 (" in str(failed.error)
    assert not failed.success and len(failed.steps) < len(whole.steps) and whole.error is None
    assert training_episodes(UpstreamRun(project / manifest.output_dir, manifest)) == [whole]


def test_too_many_errors_stop_the_run_and_are_played_again_on_request(
    project: Path, collect: Collect, server: Server
) -> None:
    server.otherwise = fails(400, "no such parameter")
    with pytest.raises(
        R2VError, match=r"2 of 2 episodes ended in an error.*max_error_share is 0\.05.*no such parameter"
    ):
        collect("mine")
    server.otherwise = says("look")
    with pytest.raises(R2VError, match="2 of 2 episodes ended in an error"):
        collect("mine")  # they are on disk
    manifest = collect("mine", "episodes.retry_errors=true")
    assert manifest.status == "done" and "errors" not in manifest.counts
    assert list((project / manifest.output_dir).parent.iterdir()) == [project / manifest.output_dir]  # the same run
    found = episodes(project, manifest)
    assert len(found) == 2 and not any(episode.error for episode in found)


def test_a_local_model_teaches(project: Path, collect: Collect) -> None:
    manifest = collect("smollm2", "teacher.options.max_tokens=12")
    assert (manifest.status, manifest.provider, manifest.model) == ("done", "local", "smollm2-135m-instruct")
    played = [step for episode in episodes(project, manifest) for step in episode.steps if step.actor == "teacher"]
    assert played and all(step.tokens_in > 50 and step.tokens_out > 0 and step.cost_usd == 0 for step in played)
    explored = [step for episode in episodes(project, manifest) for step in episode.steps if step.actor == "explore"]
    assert explored and all(step.expert_action is None for step in explored), "its pupil learns from nobody else"
    again = collect("smollm2", "teacher.options.max_tokens=12", resume=False)
    assert again.run_id != manifest.run_id and again.digest == manifest.digest


def test_a_spent_budget_ends_as_partial_and_goes_on_without_paying_twice(
    project: Path, games: Path, collect: Collect, server: Server
) -> None:
    stopped = by_hand(project, games, "mine", "teacher.limits.budget_calls=3")
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("error: teacher.limits.budget_calls: the run's 3 teacher calls")
    (run_dir,) = (project / "data" / "runs").glob("textworld*")
    partial = read_manifest(run_dir)
    assert partial.status == "partial" and "budget_calls" in (partial.error or "") and len(server.requests) == 3

    done = collect("mine", "teacher.limits.budget_calls=50")
    assert (done.run_id, done.status, done.n_episodes) == (partial.run_id, "done", 2)
    asked = [json.dumps(request.body, sort_keys=True) for request in server.requests]
    assert len(asked) == len(set(asked)) == done.counts["teacher_calls"]

    fresh = collect("mine", resume=False)
    assert len(server.requests) == len(asked) and fresh.digest == done.digest
    assert fresh.counts["teacher_calls"] == 0 and fresh.counts["teacher_cached"] == len(asked)
    steps = [step for episode in episodes(project, fresh) for step in episode.steps if step.actor == "teacher"]
    assert steps and all((step.tokens_in, step.tokens_out) == (100, 10) for step in steps)


def test_a_failed_server_leaves_a_run_that_goes_on(project: Path, collect: Collect, server: Server) -> None:
    server.script.append(says("look"))
    server.otherwise = fails(500)
    with pytest.raises(Exception, match="in 3 attempts"):
        collect("mine")
    (run_dir,) = (project / "data" / "runs").glob("textworld*")
    assert read_manifest(run_dir).status == "partial"
    server.otherwise = says("look")
    assert collect("mine").run_id == run_dir.name


def test_what_was_no_action_is_recorded_and_not_learnt(project: Path, collect: Collect, server: Server) -> None:
    server.otherwise = says("look\nor not")
    manifest = collect("mine")
    steps = [step for episode in episodes(project, manifest) for step in episode.steps if step.actor == "teacher"]
    assert steps and {step.malformed for step in steps} == {"the reply has 2 lines"}
    assert {step.action for step in steps} == {"look"} and {teacher_action(step) for step in steps} == {None}
    assert manifest.counts["teacher_malformed"] == len(steps)


def test_a_missing_key_is_said_before_any_work(project: Path, games: Path, collect: Collect) -> None:
    unpaid = by_hand(project, games, "gpt-4o-mini")
    assert unpaid.returncode == 2 and "Traceback" not in unpaid.stderr
    price = "$0.15 in, $0.6 out per million tokens"
    assert f"teacher 'gpt-4o-mini' costs money (openai gpt-4o-mini, {price}" in unpaid.stderr
    assert "set teacher.limits.budget_usd or teacher.limits.budget_calls" in unpaid.stderr
    assert not list((project / "data" / "runs").glob("textworld*"))
    done = by_hand(project, games, "gpt-4o-mini", "teacher.limits.budget_calls=5")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "teacher 'gpt-4o-mini' (provider openai) needs an API key" in done.stderr
    (manifest,) = map(read_manifest, (project / "data" / "runs").glob("textworld*"))
    assert manifest.status == "failed" and manifest.n_episodes == 0


def test_options_are_checked_when_planned(project: Path, collect: Collect) -> None:
    with pytest.raises(Exception, match=r"teacher\.options\.batchsize \(provider local\): no such key.*batch_size"):
        collect("smollm2", "teacher.options.batchsize=3")
    with pytest.raises(Exception, match=r"teacher\.limits\.budget_usd"):
        collect("smollm2", "teacher.limits.budget_used=3")
    assert not list((project / "data" / "runs").glob("textworld*"))


def test_the_key_is_in_nothing_that_a_run_writes(
    project: Path,
    collect: Collect,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    server.script.extend([fails(500, f"your key is {CANARY}"), says(f"say {CANARY}")])
    manifest = collect("paid", "teacher.limits.budget_usd=1")
    assert manifest.cost_usd == pytest.approx(manifest.counts["teacher_spent_usd"]) and manifest.cost_usd > 0
    written = {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and "games" not in path.parts}
    assert any(b"say [key]" in content for content in written.values())
    assert not [path for path, content in written.items() if CANARY.encode() in content]
    out, err = capfd.readouterr()
    assert "[key]" in err and CANARY not in out + err


# -- a real server


@pytest.fixture(scope="module")
def transformers_serve(model_cache: Path, real_slm: SLMConfig) -> Iterator[tuple[str, str]]:
    """``transformers serve`` with the packaged model on a free port: (base_url, model)."""
    model = resolve_model(real_slm.model, model_cache)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 180
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(f"transformers serve did not come up: {process.stdout and process.stdout.read()!r}")
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_transformers_serve_teaches(
    project: Path, collect: Collect, transformers_serve: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model = transformers_serve
    monkeypatch.setenv("SERVER_URL", url)
    (project / "configs" / "teachers.yaml").write_text(
        f'teachers: {{served: {{provider: openai_compatible, model: "{model}", base_url: "${{oc.env:SERVER_URL}}"}}}}'
    )
    manifest = collect("served", "teacher.options.max_tokens=12", "collection.episodes_per_task=1")
    assert (manifest.status, manifest.provider, manifest.model) == ("done", "openai_compatible", model)
    (episode,) = episodes(project, manifest)
    assert all(step.tokens_in > 50 and 0 < step.tokens_out <= 24 and step.cost_usd == 0 for step in episode.steps)
    calls = manifest.counts["teacher_calls"]
    assert calls >= len(episode.steps) > 0
    again = collect("served", "teacher.options.max_tokens=12", "collection.episodes_per_task=1", resume=False)
    assert again.digest == manifest.digest and again.counts["teacher_calls"] == 0
