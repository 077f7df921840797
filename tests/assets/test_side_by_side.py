"""Which assets of a partition may be made at the same time."""

from __future__ import annotations

import pytest

from r2v_assets.side_by_side import ready
from r2v_core.stages.experiments import load_config
from r2v_core.stages.table import BY_ASSET, pipeline
from tests.assets.conftest import REPOSITORY


def test_what_waits_for_nobody_is_ready_in_the_pipelines_order() -> None:
    config = load_config("configs/mrp.yaml", (), REPOSITORY).config
    waiting = {stage.name: stage for stage in pipeline(config)}
    assert ready(waiting, (), config) == ["task_suite"]
    waves = []
    while waiting:
        waves.append(ready(waiting, (), config))
        for name in waves[-1]:
            del waiting[name]
    assert ["train_bc", "train_verifier"] in waves and ["evaluate_clean", "evaluate_noisy"] in waves
    assert waves[-2:] == [["result_tables"], ["report"]]


@pytest.mark.parametrize(
    ("running", "expected"), [((), {"evaluate_clean", "evaluate_noisy"}), (("train_router",), set())]
)
def test_what_is_under_way_is_waited_for(running: tuple[str, ...], expected: set[str]) -> None:
    config = load_config("configs/mrp.yaml", (), REPOSITORY).config
    assets = ("evaluation_clean", "evaluation_noisy", "ablation_static_threshold")
    chosen = {stage.name: stage for asset in assets for stage in [BY_ASSET[asset]]}
    assert set(ready(chosen, running, config)) == expected
