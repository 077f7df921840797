"""Which runs depend on what samples tokens."""

from __future__ import annotations

import pytest

from r2v_core.benchmarks import options_model
from r2v_core.config import LoadedConfig, load_config
from r2v_core.config.schema import Config
from r2v_core.partition import Partition
from r2v_core.runs.agreement import disagreement
from r2v_core.runs.fingerprint import fingerprint
from r2v_core.runs.manifest import RunManifest
from r2v_core.stages.table import STAGES, all_sections
from tests.stages.conftest import ROOT

SAMPLE = {"policy_rollouts", "candidates", "router_features", "train_router", "evaluate_clean", "evaluate_noisy"}
SCRIPTED = ["slm.engine=scripted"]


def loaded(*overrides: str) -> LoadedConfig:
    return load_config("configs/base.yaml", overrides, ROOT, options_model)


@pytest.mark.parametrize("overrides", [SCRIPTED, [*SCRIPTED, "slm.engine_options.otherwise=[wait]"]])
def test_the_engine_is_in_the_fingerprint_of_what_samples_and_of_nothing_else(overrides: list[str]) -> None:
    partition = Partition.parse("textworld:expert|1")
    before = [] if overrides == SCRIPTED else SCRIPTED
    changed = {
        name
        for name, stage in STAGES.items()
        if fingerprint(stage, loaded(*before), partition, []) != fingerprint(stage, loaded(*overrides), partition, [])
    }
    assert changed == SAMPLE


def test_a_trained_policy_is_sampled_by_any_engine_but_must_be_of_the_same_model() -> None:
    policy = RunManifest.model_construct(run_id="p", config=Config().model_dump(mode="json"))
    sections = all_sections(STAGES["train_bc"], Config())
    assert disagreement(sections, loaded(*SCRIPTED), policy) is None
    assert "slm.model" in str(disagreement(sections, loaded("slm.model=other/model"), policy))
