"""Labels by the benefit of a call: soft labels in every number, pairs on one stream, and a real run that is killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom

from r2v_core.agent.continuations import CONTINUATIONS, Start, continuations
from r2v_core.agent.features import FEATURES, vain_calls
from r2v_core.agent.live import Job
from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import AgentConfig, RouterConfig
from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import (
    auc,
    brier_score,
    expected_calibration_error,
    fit_level_and_slope,
    log_loss,
    reliability_table,
)
from r2v_core.models.router import Router, RouterNet, RouterRow, Scorer, label_name
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.stages.benefit import Benefit, benefit_at, starts_of
from r2v_core.stages.router_features import by_benefit, rows_of
from r2v_core.stages.router_rows import check_rows
from r2v_core.training.lagrangian import fit_failure_model, make_rollouts
from r2v_core.training.router import train_net
from r2v_core.training.router_diagnostics import diagnose, preview
from r2v_core.training.scorers import SCORERS, Fitting
from r2v_core.trajectory import Candidate, Decision, Episode, Observation, Step

MakeRows = Callable[..., list[RouterRow]]
QUARTERS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=30)


def as_copies(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Each probability four times, as many of them labelled 1 as its soft label says in quarters."""
    p, t = np.array(pairs).T
    return np.repeat(p, 4), (np.arange(4)[None, :] < 4 * t[:, None]).astype(float).ravel()


@given(QUARTERS)
def test_a_soft_label_is_its_share_of_copies_in_every_number(pairs: list[tuple[float, float]]) -> None:
    (p, t), (copied, y) = np.array(pairs).T, as_copies(pairs)
    for function in (expected_calibration_error, brier_score, auc):
        assert function(p, t) == pytest.approx(function(copied, y), nan_ok=True)
    assert log_loss(4 * p - 2, t) == pytest.approx(log_loss(4 * copied - 2, y))
    ours, theirs = reliability_table(p, t), reliability_table(copied, y)
    assert ours["observed"].to_numpy() == pytest.approx(theirs["observed"].to_numpy(), nan_ok=True)


def test_level_and_slope_of_soft_labels_are_those_of_copies() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=2000)
    t = np.round(4 * expit(0.6 * logits - 1)) / 4
    y = (np.arange(4)[None, :] < 4 * t[:, None]).ravel()
    ours, theirs = fit_level_and_slope(logits, t), fit_level_and_slope(np.repeat(logits, 4), y)
    assert ours == pytest.approx(theirs, abs=0.01)  # smoothing counts labels, of which there are four times as many


def benefit_rows(rows: list[RouterRow]) -> list[RouterRow]:
    """The rows' labels as benefits in quarters: each is the mean over four neighbours."""
    soft = [float(np.mean([row.label for row in rows[4 * (i // 4) : 4 * (i // 4) + 4]])) for i in range(len(rows))]
    update = {"label_source": "benefit", "failed": None}
    return [row.model_copy(update={**update, "label": t}) for row, t in zip(rows, soft, strict=True)]


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_learn_a_soft_label_as_copies_of_both_classes(name: str, tmp_path: Path, make_rows: MakeRows) -> None:
    rows = benefit_rows(make_rows(1, tasks=6, seeds=3))
    copies = [
        row.model_copy(update={"label": float(i < 4 * row.label), "episode_id": f"{row.episode_id}~{i}"})
        for i in range(4)
        for row in rows
    ]
    fitting = Fitting(
        FEATURES, RouterConfig(epochs=20, dropout=0.0, objective="expected_cost"), AgentConfig(), 1, tmp_path
    )
    x = fitting.x(rows)
    soft, hard = (Scorer(SCORERS[name](some, fitting)).logits(x) for some in (rows, copies))
    assert np.corrcoef(soft, hard)[0, 1] > 0.995 and np.abs(soft - hard).mean() < 0.15
    assert np.ptp(soft) > 0.5


def test_a_teacher_costs_nothing_of_a_benefit_and_the_brier_score_is_that_of_soft_labels(
    tmp_path: Path, make_rows: MakeRows
) -> None:
    rows = benefit_rows(make_rows(1, tasks=4, seeds=3))
    model, rollouts = fit_failure_model(rows), make_rollouts(rows, FEATURES)
    assert model.teacher_failure == 0.0
    _, log = train_net(rollouts, model, RouterConfig(epochs=1, dropout=0.0), AgentConfig(), 1, tmp_path)
    t = rollouts.label.numpy()
    assert 0.0 < float((t * (1 - t)).mean()) < log[0].brier  # no probability gets below it


def test_every_number_of_a_router_names_its_label(make_rows: MakeRows) -> None:
    with torch.random.fork_rng():
        net = RouterNet(len(FEATURES), [], 0.0)
    found = {}
    for label, rows in (("progress", make_rows(2)), ("benefit", benefit_rows(make_rows(2)))):
        router = Router({"logistic": Scorer([net])}, list(FEATURES), "logistic", label=label_name(rows))
        router.calibration = {"share": 0.5, "statement": "", "levels": {}}
        found[label] = diagnose(router, rows, seed=1)
        text = preview(found[label], router)
        assert found[label]["label"] == label and f"is against the label '{label}': " in text
        assert ("mean benefit of a call" in text) == (label == "benefit")
    assert found["benefit"]["auc"] != found["progress"]["auc"]
    with pytest.raises(R2VError, match="labelled by benefit and by progress, and a router learns from one"):
        label_name([*make_rows(2), *benefit_rows(make_rows(2))])


def test_a_router_keeps_its_label_and_one_of_version_2_learnt_progress(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        net = RouterNet(1, [], 0.0)
    Router({"logistic": Scorer([net])}, ["step"], "logistic", label="benefit").save(tmp_path)
    assert Router.load(tmp_path).label == "benefit"
    settings = json.loads((tmp_path / "router.json").read_text())
    assert settings.pop("version") == 3 and settings.pop("label") == "benefit"
    scorers = {"logistic": {"hidden": [[]], "slope": 1.0, "level": 0.0}}  # as version 2 held them
    (tmp_path / "router.json").write_text(json.dumps({**settings, "version": 2, "scorers": scorers}))
    assert Router.load(tmp_path).label == "progress"


def test_rows_of_before_are_read(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows(2)[:2]
    old = [
        {**row.model_dump(exclude={"with_teacher", "alone"}), "label": bool(row.label), "schema_version": 1}
        for row in rows
    ]
    (tmp_path / "features.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert list(JsonlStore(tmp_path / "features.jsonl", RouterRow)) == rows


def test_benefits_that_are_all_alike_are_refused(make_rows: MakeRows) -> None:
    rows = [row.model_copy(update={"label": 0.0}) for row in benefit_rows(make_rows(2))]
    with pytest.raises(
        R2VError, match=r"benefit of a call is 0 at every one of .* raise router_features\.benefit\.state"
    ):
        check_rows("validation", rows)


def step(index: int, action: str, actor: str, says: str = "look", expert: str | None = None, state: str = "s") -> Step:
    candidate = Candidate(text=says, logprob=-1.0, n_tokens=1, entropy=1.0)
    decision = Decision(method="random_router", candidates=[candidate], chosen=0, features={"entropy": 1.0})
    return Step(
        index=index, observation=Observation(state=state), action=action, actor=actor, decision=decision,
        expert_action=expert,
    )  # fmt: skip


EPISODE = Episode(
    episode_id="e",
    benchmark="textworld",
    task_id="t",
    template_id="t",
    goal="g",
    success=False,
    perturbation_seed=7,
    metadata={
        "family": "f",
        "split": "router",
        CONTINUATIONS: {"1": {"go": [3, 4], "look": [1, 4]}, "2": {"go": [1, 4]}},
    },
    steps=[
        step(0, "look", "teacher"),  # the teacher did what the small model would have
        step(1, "look", "slm", expert="go"),
        step(2, "go", "teacher"),  # no continuation of the small model's action ended
        step(3, "look", "slm"),  # nobody asked the teacher
        step(4, "look", "slm", expert="go"),  # not drawn
    ],
)
TASK = Task(
    task_id="t", template_id="t", benchmark="textworld", family="f", goal="g", split="router", max_steps=9, content=""
)


def drawn(episode_id: str, index: int) -> bool:
    return index != 4


def test_labels_are_differences_and_equal_actions_need_no_playing() -> None:
    starts = starts_of(EPISODE, Job("e", TASK), drawn)
    assert [(start.step, start.action) for start in starts] == [(1, "go"), (1, "look"), (2, "go"), (2, "look")]
    rows = rows_of(EPISODE, partial(by_benefit, drawn))
    assert [(row.step, row.label, row.with_teacher, row.alone) for row in rows] == [
        (0, 0.0, None, None),
        (1, 0.5, [3, 4], [1, 4]),
    ]
    assert {row.label_source for row in rows} == {"benefit"} and benefit_at(EPISODE, EPISODE.steps[3]) is None
    assert Benefit([1, 4], [4, 4]).label == 0.0  # what it costs to call is no benefit
    broken = EPISODE.model_copy(update={"metadata": {**EPISODE.metadata, "error": "environment: boom"}})
    assert starts_of(broken, Job("e", TASK), drawn) == [] and rows_of(broken, partial(by_benefit, drawn)) == []


def bias(alone: float, benefit: float, n: int) -> float:
    """By how much the mean label exceeds the benefit, where the n of both kinds are independent."""
    won = np.arange(n + 1)
    chance = binom.pmf(won, n, alone + benefit)[:, None] * binom.pmf(won, n, alone)[None, :]
    labels = [[Benefit([int(a), n], [int(b), n]).label for b in won] for a in won]
    return float((chance * np.array(labels)).sum()) - benefit


def test_how_much_labels_that_are_never_negative_exceed_the_truth() -> None:
    """The numbers of docs/method.md."""
    at_most = {n: max(bias(p, 0.0, n) for p in np.linspace(0.05, 0.95, 19)) for n in (4, 8, 16)}
    assert [round(value, 2) for value in at_most.values()] == [0.14, 0.1, 0.07]
    assert [round(bias(0.5 - b / 2, b, 4), 2) for b in (0.1, 0.25, 0.5)] == [0.09, 0.04, 0.01]


def test_pairs_share_a_stream_and_no_two_pairs_do() -> None:
    streams = {
        action: [
            job.branch.stream for job in continuations(Start(EPISODE, 1, action, TASK, paired=True), 4) if job.branch
        ]
        for action in ("go", "look")
    }
    assert streams["go"] == streams["look"] and len(set(streams["go"])) == 4
    elsewhere = continuations(Start(EPISODE, 2, "go", TASK, paired=True), 4)
    assert not {job.branch.stream for job in elsewhere if job.branch} & set(streams["go"])
    alone = continuations(Start(EPISODE, 1, "go", TASK), 4)
    assert [job.branch.stream for job in alone if job.branch] == [job.episode_id for job in alone]


def test_vain_calls_count_what_the_teacher_did_here_for_nothing() -> None:
    history = [
        step(0, "look", "teacher", state="a"),
        step(1, "look", "slm", state="a"),
        step(2, "go", "teacher", state="a"),  # led elsewhere
        step(3, "look", "teacher", state="b"),
        step(4, "back", "slm", state="b"),
        step(5, "look", "teacher", state="a").model_copy(update={"executed": False}),  # a tool failure
    ]
    assert vain_calls(history, Observation(state="a")) == 1
    assert vain_calls([*history, step(6, "look", "teacher", state="a")], Observation(state="a")) == 2
    assert vain_calls(history, Observation(state="b")) == 1
    assert vain_calls(history, Observation(state="c")) == 0
