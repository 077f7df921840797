"""Materialising from a shell, as users do: real stages, real processes, a Dagster instance on disk."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import RunManifest, read_manifest
from tests.assets.conftest import Project, make_project

FIRST = "textworld:expert|1"


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Project:
    """A project in which `trajectory_run` was asked for on a bare partition."""
    project = make_project(tmp_path_factory.mktemp("project"), model_cache)
    done = project.materialize("trajectory_run", tags=["first"], notes="by the test")
    assert done.returncode == 0, done.stderr
    return project


def runs(project: Project, stage: str) -> list[RunManifest]:
    found = [read_manifest(path.parent) for path in project.root.glob("**/run_manifest.json")]
    return sorted((run for run in found if run.stage == stage), key=lambda run: run.created_at)


def test_bare_partition_makes_its_task_suite_first(collected: Project) -> None:
    (suite,), (run,) = runs(collected, "task_suite"), runs(collected, "collect")
    assert (suite.status, run.status, run.inputs[0].run_id) == ("done", "done", suite.run_id)
    (event,) = collected.materializations("task_suite")
    assert event.partition == FIRST
    assert event.metadata["run_id"].value == suite.run_id


def test_data_version_is_the_digest_and_metadata_tells_the_run(collected: Project) -> None:
    (run,) = runs(collected, "collect")
    (event,) = collected.materializations("trajectory_run")
    assert event.tags is not None and event.tags["dagster/data_version"] == run.digest
    told = {name: value.value for name, value in event.metadata.items()}
    assert told["run_id"] == run.run_id and Path(str(told["run_dir"])).name == run.run_id
    assert told["episodes"] == run.n_episodes == 9 and told["success_rate"] == pytest.approx(run.success_rate, abs=1e-4)
    assert "| mode | episodes |" in str(told["preview"]) and runs(collected, "task_suite")[0].run_id in str(
        told["inputs"]
    )
    assert (run.tags, run.notes) == (["first"], "by the test") and run.dagster_run_id


def test_runs_are_registered_with_their_lineage(collected: Project) -> None:
    table = DataRegistry(project=collected.root).sql("SELECT run_id, stage, status FROM runs ORDER BY stage")
    assert table["stage"].tolist() == ["collect", "task_suite"] and set(table["status"]) == {"done"}


def test_checks_ran_with_their_asset(collected: Project) -> None:
    with collected.instance() as instance:
        run = instance.get_runs(limit=1)[0]
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
    names = {e.event_specific_data.check_name for e in events if e and e.event_type_value == "ASSET_CHECK_EVALUATION"}
    assert names == {"no_duplicate_trajectories", "teacher_succeeds", "run_intact"}


def test_progress_reaches_dagsters_log(collected: Project) -> None:
    with collected.instance() as instance:
        run = instance.get_runs(limit=1)[0]
        messages = [entry.user_message for entry in instance.all_logs(run.run_id)]
    assert any(message.startswith("episodes 9/9 (100%)") for message in messages)
    assert not any("did not receive" in message for message in messages)


def test_made_again_from_scratch_the_digests_are_equal(collected: Project, project: Project) -> None:
    assert project.materialize("task_suite").returncode == 0
    assert project.materialize("trajectory_run").returncode == 0
    for stage in ("task_suite", "collect"):
        assert runs(project, stage)[0].digest == runs(collected, stage)[0].digest


def test_without_an_instance_inputs_are_found_on_disk(collected: Project) -> None:
    environment = {key: value for key, value in collected.environment.items() if key != "DAGSTER_HOME"}
    import subprocess

    done = subprocess.run(
        collected.command(*collected.materialize_args("perturbed_dataset")),
        cwd=collected.root, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {item.run_id for item in runs(collected, "perturb")[0].inputs} == {
        runs(collected, "task_suite")[0].run_id,
        runs(collected, "collect")[0].run_id,
    }


def test_missing_input_is_one_clear_message(project: Project) -> None:
    done = project.materialize("bc_policy", "textworld:expert|2")
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert "'bc_policy' needs 'trajectory_run' of partition 'textworld:expert|2'" in told
    assert "--select trajectory_run --partition 'textworld:expert|2'" in told
    assert "Traceback" not in told and "Stack Trace" not in told
    assert not list(project.root.glob("outputs/**/run_manifest.json"))


def test_unknown_partition_is_one_clear_message(project: Project) -> None:
    done = project.materialize("task_suite", "textworld:expert|99")
    assert done.returncode != 0
    assert "unknown partition 'textworld:expert|99'" in done.stderr and "Traceback" not in done.stderr


def test_wrong_override_is_refused_before_any_work(project: Project) -> None:
    done = project.materialize("task_suite", overrides=["benchmark.max_stepps=3"])
    assert done.returncode != 0
    assert "Did you mean 'benchmark.max_steps'" in done.stdout + done.stderr
    assert not list(project.root.glob("**/run_manifest.json"))


def test_failing_stage_shows_its_own_error_and_is_registered(project: Project) -> None:
    done = project.materialize("task_suite", overrides=["paths.cache=configs/small.yaml"])  # a file, not a folder
    assert done.returncode != 0
    (run,) = runs(project, "task_suite")
    assert run.status == "failed" and run.error and "FileExistsError" in run.error and "small.yaml" in run.error
    told = done.stdout + done.stderr
    assert run.error in told and "Stack Trace" not in told
    with project.instance() as instance:
        logs = instance.all_logs(instance.get_runs(limit=1)[0].run_id)
    (failure,) = [e.dagster_event for e in logs if e.dagster_event and e.dagster_event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description == run.error
    table = DataRegistry(project=project.root).sql("SELECT status FROM runs")
    assert table["status"].tolist() == ["failed"]


def test_cancelled_run_ends_the_stage_and_is_taken_up_again(project: Project) -> None:
    cold = ["paths.cache=cold", "benchmark.splits.train=8"]  # games to compile, so that there is time to cancel
    process = project.start(*project.materialize_args("task_suite", overrides=cold))
    end = time.monotonic() + 60
    while not (found := runs(project, "task_suite")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert found, (project.root / "out.log").read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    (run,) = runs(project, "task_suite")
    assert run.status == "partial"
    assert not stage_processes(project)
    done = project.materialize("task_suite", overrides=cold)
    assert done.returncode == 0, done.stderr
    (again,) = runs(project, "task_suite")
    assert (again.run_id, again.status) == (run.run_id, "done")


def stage_processes(project: Project) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(project.root) in command and "r2v_core.stages" in command:
            found.append(command)
    return found


def test_spec_of_a_run_can_be_run_by_hand(collected: Project) -> None:
    (run,) = runs(collected, "task_suite")
    spec = json.loads((collected.root / run.output_dir / "spec.json").read_text())
    assert (spec["run_id"], spec["fingerprint"]) == (run.run_id, run.fingerprint)
    assert Path(spec["run_dir"]).is_absolute()
