"""The parts of Dagster beyond its public interface: what they have to do here, and that one module uses them."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from r2v_assets import dagster_adapter
from r2v_assets.failure import StageFailure
from tests.assets.conftest import REPOSITORY


def private_imports(path: Path) -> list[str]:
    """Modules of Dagster that a file imports although they are not for others."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return [name for name in names if name.startswith(("dagster._", "dagster_shared", "dagster_slurm._"))]


def test_one_module_imports_private_parts() -> None:
    files = [
        path
        for folder in ("r2v_core", "r2v_assets", "benchmarks", "tests")
        for path in (REPOSITORY / folder).rglob("*.py")
    ]
    users = {path.name for path in files if private_imports(path)}
    assert users == {"dagster_adapter.py"}


def test_the_installed_version_is_one_that_was_checked() -> None:
    requirement = next(
        line
        for line in (REPOSITORY / "pyproject.toml").read_text().splitlines()
        if line.strip().startswith('"dagster>')
    )
    assert dagster_adapter.CHECKED in requirement
    assert version("dagster") in SpecifierSet(dagster_adapter.CHECKED)


def test_a_stage_failure_is_shown_without_a_stack_trace() -> None:
    @dg.asset
    def broken() -> None:
        raise StageFailure("out of cheese", allow_retries=False)

    result = dg.materialize([broken], raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    told = error.to_string()
    assert "out of cheese" in told and "Traceback" not in told and ".py" not in told
    assert not dagster_adapter.interrupted(failure)


def test_an_interrupt_is_told_from_a_failure() -> None:
    @dg.asset
    def stopped() -> None:
        raise KeyboardInterrupt

    events = []
    with pytest.raises(KeyboardInterrupt), dg.DagsterInstance.ephemeral() as instance:
        try:
            dg.materialize([stopped], instance=instance)
        finally:
            run = instance.get_runs()[0]
            events = [e.dagster_event for e in instance.all_logs(run.run_id) if e.dagster_event]
    (failure,) = [event for event in events if event.is_step_failure]
    assert dagster_adapter.interrupted(failure)


def test_a_run_of_this_process_belongs_to_the_code_location_of_the_workspace(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(
        yaml.safe_dump({"load_from": [{"python_module": {"module_name": "some.where", "location_name": "here"}}]})
    )

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a"]))
    def thing() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions([thing], jobs=[dg.define_asset_job("thing_job", ["thing"])]).resolve_job_def("thing_job")
        done = dagster_adapter.materialize_here(
            job, "thing", instance, workspace, partition_key="a", run_config={}, tags={"x": "y"}
        )
        (run,) = instance.get_runs()
        assert "create_run_for_job" not in vars(instance)
    assert done.success and run.tags["x"] == "y" and run.asset_selection == {dg.AssetKey("thing")}
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == "here"
    assert run.remote_job_origin.repository_origin.repository_name == "__repository__"
    assert run.job_name == run.remote_job_origin.job_name == "thing_job"
