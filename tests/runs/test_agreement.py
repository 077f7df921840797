"""Which evaluations may stand in one table, snapshots of older programs among them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from r2v_core.config.schema import Config
from r2v_core.runs.agreement import differing_keys

TODAY: dict[str, Any] = Config().model_dump(mode="json")


def snapshot(**changes: Any) -> dict[str, Any]:
    """Today's defaults with other values at dotted keys; None takes the key away."""
    config = deepcopy(TODAY)
    for dotted, value in changes.items():
        *above, name = dotted.split("__")
        section = config
        for part in above:
            section = section[part]
        if value is None:
            del section[name]
        else:
            section[name] = value
    return config


@pytest.mark.parametrize("key", ["perturbations__held_out", "perturbations__tool_flakiness__partial", "episodes"])
def test_a_key_that_came_later_stood_at_its_default(key: str) -> None:
    assert differing_keys(TODAY, snapshot(**{key: None})) == []


def test_worlds_were_alike_before_they_had_a_spread() -> None:
    before = snapshot(perturbations__severity_spread=None)
    assert differing_keys(before, TODAY) == ["perturbations.severity_spread"]
    assert differing_keys(before, snapshot(perturbations__severity_spread=0.0)) == []


def test_what_was_made_under_other_noise_or_options_is_another_experiment() -> None:
    other = snapshot(perturbations__held_out=["distractors"], benchmark__options={"goals": ["brief"]}, name="x")
    assert differing_keys(TODAY, other) == ["benchmark.options.goals", "perturbations.held_out"]
    assert differing_keys(other, TODAY) == differing_keys(TODAY, other)
