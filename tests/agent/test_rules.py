"""Routing rules: each escalates where its definition says, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from r2v_core.agent.rules.base import RoutingContext
from r2v_core.agent.rules.table import evaluated_methods, make_rules
from r2v_core.config.schema import AgentConfig, EvaluationConfig
from r2v_core.errors import R2VError

ALL = [
    "r2v",
    "slm_only",
    "llm_only",
    "entropy_router",
    "heuristic_router",
    "verifier_router",
    "random_router",
    "oracle_router",
]


def router(probability: float = 0.7, threshold: float = 0.5) -> SimpleNamespace:
    """What the rules need of a trained router."""
    return SimpleNamespace(
        features=("entropy", "verifier_mean"),
        threshold=threshold,
        probability=lambda rows, scorer="": np.full(len(rows), 0.9 if scorer == "logistic" else probability),
        rules={
            "entropy_router": {"threshold": 1.0},
            "verifier_router": {"threshold": 0.6},
            "random_router": {"rate": 0.3},
            **{
                name: {"threshold": threshold}
                for name, threshold in {
                    "logprob_router": 1.5,
                    "consistency_router": 0.4,
                    "logistic_router": 0.8,
                    "stuck_router": 0.5,
                    "first_steps_router": 0.3,
                    "cascade_router": 0.5,
                    "episode_router": 0.5,
                }.items()
            },
        },
        threshold_at=lambda rule, share: {"r2v": 0.6, "entropy_router": 2.0, "verifier_router": 0.8}[rule] + share,
    )


def query(
    entropy: float = 0.5,
    verifier_mean: float = 0.9,
    step: int = 0,
    truth: Callable[[], bool | None] = lambda: True,
    task_id: str = "t",
    earlier: Sequence[Mapping[str, float]] = (),
    features: dict[str, float] | None = None,
) -> RoutingContext:
    """One step to route."""
    return RoutingContext(
        features=features or {"entropy": entropy, "verifier_mean": verifier_mean},
        earlier=earlier,
        task_id=task_id,
        z=7,
        replicate=0,
        step=step,
        would_progress=truth,
    )


@pytest.fixture
def rules() -> dict[str, Callable[[RoutingContext], object]]:
    """All eight rules."""
    return make_rules(ALL, AgentConfig(), seed=1, router=router())  # type: ignore[arg-type]


def test_fixed_rules(rules):
    assert not rules["slm_only"](query(entropy=99)).escalate
    assert rules["llm_only"](query()).escalate


def test_entropy_and_verifier_rules_compare_with_the_calibrated_threshold(rules):
    assert not rules["entropy_router"](query(entropy=1.0)).escalate
    answer = rules["entropy_router"](query(entropy=1.01))
    assert answer.escalate and answer.probability == 1.01 and answer.threshold == 1.0
    assert rules["verifier_router"](query(verifier_mean=0.39)).escalate
    assert not rules["verifier_router"](query(verifier_mean=0.41)).escalate


def test_heuristic_uses_either_signal(rules):
    assert rules["heuristic_router"](query(entropy=2.6)).escalate
    assert rules["heuristic_router"](query(verifier_mean=0.39)).escalate
    assert not rules["heuristic_router"](query(entropy=2.4, verifier_mean=0.41)).escalate


def test_oracle_escalates_exactly_where_the_slm_would_fail(rules):
    assert rules["oracle_router"](query(truth=lambda: False)).escalate
    assert not rules["oracle_router"](query(truth=lambda: True)).escalate
    assert not rules["oracle_router"](query(truth=lambda: None)).escalate


def test_learned_rule_reports_its_probability():
    for probability, escalate in ((0.7, True), (0.5, False), (0.2, False)):
        rule = make_rules(["r2v"], AgentConfig(), seed=1, router=router(probability))["r2v"]  # type: ignore[arg-type]
        answer = rule(query())
        assert (answer.escalate, answer.probability, answer.threshold) == (escalate, probability, 0.5)


@pytest.mark.parametrize(
    ("name", "asks", "does_not"),
    [
        ("logprob_router", {"logprob_chosen": -1.6}, {"logprob_chosen": -1.4}),
        ("consistency_router", {"consistency": 0.5}, {"consistency": 0.75}),
        ("stuck_router", {"state_seen": 1.0}, {"state_seen": 0.0}),
        ("first_steps_router", {"step": 2.0}, {"step": 3.0}),
    ],
)
def test_one_number_asks_where_it_says(name: str, asks: dict[str, float], does_not: dict[str, float]) -> None:
    rule = make_rules([name], AgentConfig(), seed=1, router=router())[name]  # type: ignore[arg-type]
    assert rule(query(features=asks)).escalate and not rule(query(features=does_not)).escalate


def test_the_logistic_rule_asks_the_routers_logistic_scorer() -> None:
    rules = make_rules(["r2v", "logistic_router"], AgentConfig(), seed=1, router=router(0.7))  # type: ignore[arg-type]
    assert (rules["r2v"](query()).probability, rules["logistic_router"](query()).probability) == (0.7, 0.9)


def test_a_cascade_keeps_the_teacher_and_an_episode_rule_the_first_player() -> None:
    made = router()
    made.probability = lambda rows, scorer="": rows[:, 0]  # the entropy itself
    rules = make_rules(["r2v", "cascade_router", "episode_router"], AgentConfig(), seed=1, router=made)  # type: ignore[arg-type]
    risks = [0.25, 0.75, 0.125]
    steps = [{"entropy": risk, "verifier_mean": 0.0} for risk in risks]
    asked = {
        name: [rule(query(features=steps[i], earlier=steps[:i])).escalate for i in range(3)]
        for name, rule in rules.items()
    }
    assert asked == {
        "r2v": [False, True, False],
        "cascade_router": [False, True, True],
        "episode_router": [False, False, False],
    }
    started = [{"entropy": 0.75, "verifier_mean": 0.0}, *steps]
    assert rules["episode_router"](query(features=started[1], earlier=started[:1])).escalate


def test_random_rule_meets_its_rate_and_repeats_itself(rules):
    queries = [query(step=i % 50, task_id=f"t{i // 50}") for i in range(5000)]
    first = [rules["random_router"](q).escalate for q in queries]
    assert first == [rules["random_router"](q).escalate for q in queries]
    assert abs(np.mean(first) - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 5000)


def test_bad_methods_are_named():
    with pytest.raises(R2VError, match=r"Unknown method 'r2w'\. Did you mean 'r2v'"):
        make_rules(["r2w"], AgentConfig(), seed=1, router=None)
    with pytest.raises(R2VError, match="'r2v' needs a trained router"):
        make_rules(["r2v"], AgentConfig(), seed=1, router=None)


def test_a_scoring_rule_at_a_share_takes_its_threshold_from_validation():
    methods = ["r2v@0.2", "entropy_router@0.2", "verifier_router@0.1", "random_router@0.25"]
    rules = make_rules(methods, AgentConfig(), seed=1, router=router(0.7))  # type: ignore[arg-type]
    assert rules["r2v@0.2"](query()).threshold == pytest.approx(0.8) and not rules["r2v@0.2"](query()).escalate
    assert rules["entropy_router@0.2"](query(entropy=2.3)).escalate
    assert rules["verifier_router@0.1"](query(verifier_mean=0.05)).escalate
    drawn = [rules["random_router@0.25"](query(step=i, task_id=str(i))).escalate for i in range(2000)]
    assert abs(np.mean(drawn) - 0.25) < 0.04
    with pytest.raises(R2VError, match=r"Unknown method 'slm_only@0\.2'"):
        make_rules(["slm_only@0.2"], AgentConfig(), seed=1, router=router())  # type: ignore[arg-type]


def test_the_sweep_adds_every_scoring_rule_that_is_evaluated():
    evaluation = EvaluationConfig(methods=["r2v", "slm_only", "random_router"], sweep=[0.1, 0.25])
    swept = ["r2v@0.1", "r2v@0.25", "random_router@0.1", "random_router@0.25"]
    assert evaluated_methods(evaluation) == ["r2v", "slm_only", "random_router", *swept]
