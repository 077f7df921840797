"""A checkout that was moved: Dagster's records find the runs again, and say where they are now."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import dagster as dg
import pytest

from r2v_assets.checks import CHECKS
from r2v_assets.dotenv import corrected
from r2v_assets.inputs import materialised_run, recorded_directory
from r2v_assets.moved import tell
from r2v_assets.registry_agreement import CHECK
from r2v_core.registry import DataRegistry
from tests.assets.conftest import PARTITION, REPOSITORY, Project


def verdicts(instance: dg.DagsterInstance, asset: str, check: str) -> list[str]:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    return [record.status.value for record in history]


def test_runs_are_found_linked_and_checked_after_a_move(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.materialize("task_suite").returncode == 0
    moved = Project(project.root.parent / "elsewhere")
    shutil.move(project.root, moved.root)
    monkeypatch.setenv("R2V_PROJECT", str(moved.root))
    with moved.instance() as instance:
        directory = materialised_run(instance, "task_suite", PARTITION)
        assert directory is not None and directory.is_relative_to(moved.root)
        assert [tell(instance), tell(instance)] == [1, 0]  # told once
        assert recorded_directory(instance, "task_suite", PARTITION) == directory
        events = instance.fetch_materializations(dg.AssetKey("task_suite"), limit=9).records
        assert len(events) == 2
        for check in ("no_template_leakage", CHECK):
            assert verdicts(instance, "task_suite", check) == ["SUCCEEDED", "SUCCEEDED"]
        (record, *_) = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("task_suite"), "no_template_leakage"), limit=1
        )
        assert record.event is not None and record.event.dagster_event is not None
        evaluation = record.event.dagster_event.event_specific_data
        assert isinstance(evaluation, dg.AssetCheckEvaluation) and evaluation.target_materialization_data is not None
        assert evaluation.target_materialization_data.storage_id == events[0].storage_id
        shown = events[0].asset_materialization.metadata
        paths = [str(shown[name].value) for name in ("run_dir", "config")]
        assert all(Path(path).exists() and Path(path).is_relative_to(moved.root) for path in paths)
    assert ("task_suite", "no_template_leakage", dg.AssetCheckSeverity.ERROR) in CHECKS
    registry = DataRegistry(moved.root)
    assert registry.sync().registered == [] and registry.doctor() == []
    copied = Project(moved.root.parent / "copied")
    shutil.copytree(moved.root, copied.root)
    monkeypatch.setenv("R2V_PROJECT", str(copied.root))
    with copied.instance() as instance:  # the original is still there, and none of the copy's business
        directory = materialised_run(instance, "task_suite", PARTITION)
        assert directory is not None and directory.is_relative_to(copied.root)
        assert tell(instance) == 1 and recorded_directory(instance, "task_suite", PARTITION) == directory


PATIENT = "DAGSTER_GRPC_TIMEOUT_SECONDS=300\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"DAGSTER_HOME=/new/dagster_home\n{PATIENT}"),
        ("A=b\nDAGSTER_HOME=/old/dagster_home\n", f"A=b\nDAGSTER_HOME=/new/dagster_home\n{PATIENT}"),
        (f"DAGSTER_HOME='/old/dagster_home/'\n{PATIENT}", f"DAGSTER_HOME=/new/dagster_home\n{PATIENT}"),
        ("DAGSTER_HOME=/srv/our-lab\n", f"DAGSTER_HOME=/srv/our-lab\n{PATIENT}"),
        ("DAGSTER_GRPC_TIMEOUT_SECONDS=9\n", "DAGSTER_GRPC_TIMEOUT_SECONDS=9\nDAGSTER_HOME=/new/dagster_home\n"),
    ],
)
def test_the_instance_in_env_is_this_checkouts_or_the_labs(before: str, after: str) -> None:
    assert corrected(before, "/new/dagster_home") == after


def test_make_notices_that_the_checkout_was_moved(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    stamp = tmp_path / ".venv" / ".installed"
    stamp.parent.mkdir()

    def planned() -> str:
        done = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    stamp.write_text(f"{tmp_path}\n")
    assert "pip install" not in planned() and "r2v_assets.moved" not in planned()
    stamp.write_text("/somewhere/else\n")
    told = "if [ -n '/somewhere/else' ]; then .venv/bin/python -m r2v_assets.moved"
    assert "pip install" in planned() and f"echo '{tmp_path}'" in planned() and told in planned()
