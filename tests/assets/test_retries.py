"""Failures that may pass are tried again, others are not; real processes."""

from __future__ import annotations

import signal
from pathlib import Path

import dagster as dg
import pytest

from r2v_assets.failure import MAX_RETRIES, StageFailure, raise_again, stage_failure
from r2v_assets.outcome import outcome
from r2v_assets.slurm.login import UnreachableError
from r2v_core.errors import R2VError, TransientError
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.spec import StageSpec
from r2v_core.stages.runner import exit_with
from tests.assets.conftest import Project


@pytest.mark.parametrize(("error", "again"), [(UnreachableError("no route"), True), (R2VError("typo"), False)])
def test_a_lost_connection_is_tried_again_and_a_mistake_is_not(error: R2VError, again: bool) -> None:
    assert stage_failure(error).allow_retries is again
    assert exit_with(error) == (TransientError.STATUS if again else 2)


@pytest.mark.parametrize(("status", "again"), [(-signal.SIGKILL, True), (TransientError.STATUS, True), (2, False)])
def test_a_process_tells_by_its_end_whether_to_try_again(tmp_path: Path, status: int, again: bool) -> None:
    spec = StageSpec.model_construct(stage="collect", run_id="r", run_dir=str(tmp_path))
    with pytest.raises(dg.Failure) as caught:
        outcome(spec, status, ["error: the words"])
    assert caught.value.allow_retries is again
    assert isinstance(caught.value, StageFailure)
    for tries in range(MAX_RETRIES + 1):
        with pytest.raises(dg.RetryRequested if again and tries < MAX_RETRIES else StageFailure):
            raise_again(caught.value, tries)


def test_a_killed_stage_is_taken_up_again_by_dagster(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of the stage is killed outright; the same Dagster run finishes the same stage run."""
    hook = project.root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, pathlib, signal, sys\n"
        f"mark = pathlib.Path({str(project.root / 'killed')!r})\n"
        "if 'r2v_core.stages.task_suite' in sys.orig_argv and not mark.exists():\n"
        "    mark.touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**project.environment, "PYTHONPATH": f"{hook}:{project.environment['PYTHONPATH']}"}
    monkeypatch.setattr(Project, "environment", property(lambda self: environment))
    done = project.materialize("task_suite")
    assert done.returncode == 0 and (project.root / "killed").exists(), done.stderr
    with project.instance() as instance:
        (run,) = instance.get_runs()
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    kinds = [event.event_type_value for event in events if event.step_key == "task_suite"]
    assert kinds.count("STEP_UP_FOR_RETRY") == 1 and kinds.count("STEP_RESTARTED") == 1
    (manifest,) = project.root.glob("data/mrp/runs/*/run_manifest.json")
    assert read_manifest(manifest.parent).status == "done"
