"""The proposer that stages of one process share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r2v_core.config.schema import Config
from r2v_core.models.verifier import Verifier
from r2v_core.partition import Partition
from r2v_core.runs.reporting import Reporter
from r2v_core.stages import rollouts


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was loaded; loading itself is replaced."""
    found: list[str] = []
    monkeypatch.setattr(rollouts, "_PROPOSERS", {})
    monkeypatch.setattr(rollouts, "open_engine", lambda *args: found.append("policy") or SimpleNamespace())
    monkeypatch.setattr(Verifier, "load", lambda *args: found.append("verifier") or SimpleNamespace())
    return found


def context(policy: str = "p", seed: int = 1, **config: Any) -> Any:
    """As much of a stage's context as the proposer needs."""

    def upstream(digest: str) -> Any:
        directory = Path(digest)
        manifest = SimpleNamespace(digest=digest)
        return SimpleNamespace(manifest=manifest, directory=directory, artifact=lambda name: directory / name)

    return SimpleNamespace(
        config=Config.model_validate(config),
        partition=Partition.parse("textworld:expert|1"),
        inputs={"policy": upstream(policy), "verifier": upstream("v")},
        cache=Path("cache"),
        run_dir=Path("run"),
        seed=seed,
        report=Reporter("test"),
    )


def test_equal_models_and_settings_share_models_and_proposals(loads: list[str]) -> None:
    first = rollouts.shared_proposer(context())
    again = rollouts.shared_proposer(context(evaluation={"methods": ["r2v"]}, training={"router": {"cvar_alpha": 1.0}}))
    assert again is first and loads == ["policy", "verifier"]


@pytest.mark.parametrize(
    "changed", [{"policy": "q"}, {"seed": 2}, {"candidates": {"k": 3}}, {"agent": {"verifier": False}}]
)
def test_whatever_a_proposal_depends_on_makes_a_new_proposer(loads: list[str], changed: dict[str, Any]) -> None:
    first = rollouts.shared_proposer(context())
    assert rollouts.shared_proposer(context(**changed)) is not first


def test_without_a_verifier_none_is_loaded(loads: list[str]) -> None:
    assert rollouts.shared_proposer(context(agent={"verifier": False})).verifier is None
    assert loads == ["policy"]
