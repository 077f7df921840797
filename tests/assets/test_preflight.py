"""What a Dagster run lacks is seen from its settings and assets, whatever else is among them."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from r2v_assets.preflight import assets_of, refuse_missing_inputs
from r2v_assets.run_config import COMPARISON
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.stages.table import BY_ASSET
from tests.assets.conftest import PARTITION, Project

KEY = Partition.parse(PARTITION)


@pytest.fixture
def instance(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Of an empty project in which this process works."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("R2V_PROJECT", str(project.root))
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_a_comparison_among_the_assets_needs_nothing(instance: dg.DagsterInstance) -> None:
    refuse_missing_inputs(instance, {}, [COMPARISON, *BY_ASSET], KEY)
    with pytest.raises(R2VError, match="'report' needs 'result_tables'"):
        refuse_missing_inputs(instance, {}, [COMPARISON, "report"], KEY)


def test_values_from_the_environment_are_left_to_the_run(instance: dg.DagsterInstance) -> None:
    config = {"ops": {"bc_policy": {"config": {"resume": {"env": "R2V_TRY"}}}}}
    refuse_missing_inputs(instance, config, ["bc_policy"], KEY)


def test_a_wrong_config_is_seen_before_the_first_asset(instance: dg.DagsterInstance) -> None:
    config = {"ops": {"report": {"config": {"config": "nowhere.yaml"}}}}
    with pytest.raises(R2VError, match=r"nowhere\.yaml"):
        refuse_missing_inputs(instance, config, list(BY_ASSET), KEY)


@pytest.mark.parametrize(
    ("job", "selection", "assets"),
    [
        ("bc_policy_job", None, ["bc_policy"]),
        ("mrp", None, []),
        ("__ASSET_JOB", {"verifier", "bc_policy"}, ["bc_policy", "verifier"]),
    ],
)
def test_a_run_names_its_assets_or_is_the_job_of_one(job: str, selection: set[str] | None, assets: list[str]) -> None:
    keys = frozenset(map(dg.AssetKey, selection)) if selection else None
    assert assets_of(dg.DagsterRun(job, asset_selection=keys)) == assets
