"""Noise on stored trajectories is the noise of the closed loop."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.agent.live import Choice, Job, Live
from r2v_core.agent.loop import play
from r2v_core.benchmarks.base import Outcome, Task
from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise, make_noise
from r2v_core.perturbations.apply import MAX_FAILURES, perturb_episode
from r2v_core.trajectory import Episode, Observation, Step
from tests.perturbations.noise_cases import PROBABILITY, episodes, everything, settings


class Recorded:
    """An environment that answers as it did when the episode was recorded."""

    def __init__(self, task: Task, episode: Episode) -> None:
        self.task = task
        self.episode = episode
        self.at = 0

    @property
    def recorded(self) -> Step:
        return self.episode.steps[self.at]

    def reset(self) -> Outcome:
        return Outcome(observation=self.recorded.observation)

    def step(self, action: str) -> Outcome:
        assert action == self.recorded.action
        progress = self.recorded.progress
        self.at += 1
        if self.at == len(self.episode.steps):
            return Outcome(
                observation=Observation(state=""), done=True, success=self.episode.success, score=0.5, progress=progress
            )
        return Outcome(observation=self.recorded.observation, progress=progress)

    def admissible(self) -> list[str]:
        return sorted({*self.recorded.alternatives, self.recorded.action})

    def would_progress(self, action: str) -> bool | None:
        return None

    def expert_action(self) -> str | None:
        return None

    def close(self) -> None:
        pass


class Replay:
    """A driver that plays the recorded actions."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        choices = []
        for episode in live:
            step = episode.environment.recorded  # type: ignore[attr-defined]  # what the guard lets through
            choices.append(Choice(action=step.action, actor=step.actor, alternatives=step.alternatives, cost=step.cost))
        return choices


@hypothesis.settings(max_examples=80, deadline=None)
@given(episodes().filter(lambda episode: len(episode.steps) > 0), st.floats(0, 0.6), st.integers(0, 999))
def test_stored_noise_is_the_noise_of_the_real_closed_loop(episode: Episode, probability: float, z: int) -> None:
    noise = make_noise(everything(probability))
    stored = perturb_episode(episode, noise, z)
    runs = "".join("." if step.executed else "x" for step in stored.steps)
    hypothesis.assume("x" * MAX_FAILURES not in runs)  # the loop tries for ever, the stored copy gives in
    task = Task(
        task_id=episode.task_id, template_id=episode.template_id, benchmark=episode.benchmark, family="f",
        goal=episode.goal, split="train", max_steps=1000, content="",
    )  # fmt: skip
    [played] = play(
        [Job("p", task, z)],
        Replay(),
        open_environment=lambda task: Recorded(task, episode),
        noise=noise,
        parallel=1,
        benchmark=episode.benchmark,
        seed=episode.seed,
        metadata={},
    )
    measured = {"tokens_in", "tokens_out", "cost_usd", "latency_s"}
    assert [step.model_dump(exclude=measured) for step in stored.steps] == [
        step.model_dump(exclude=measured) for step in played.steps
    ]
    assert (stored.success, stored.score, stored.goal) == (played.success, played.score, played.goal)


@hypothesis.settings(max_examples=50, deadline=None)
@given(episodes(), PROBABILITY, st.integers(0, 999))
def test_goal_verdict_and_actions_are_never_altered(episode: Episode, probability: float, z: int) -> None:
    before = episode.model_copy(deep=True)
    noisy = perturb_episode(episode, make_noise(everything(probability)), z)
    assert episode == before
    same = ("benchmark", "task_id", "template_id", "goal", "success", "score", "truncated", "seed", "metadata")
    assert all(getattr(noisy, name) == getattr(episode, name) for name in same)
    assert noisy.episode_id == f"e1~z{z}"
    assert noisy.perturbation_seed == z
    done = [step for step in noisy.steps if step.executed]
    assert [step.action for step in done] == episode.actions
    assert [step.progress for step in done] == [step.progress for step in episode.steps]
    assert [step.index for step in noisy.steps] == list(range(len(noisy.steps)))
    assert [
        step.clean or step.observation for step in done if step.index == 0 or noisy.steps[step.index - 1].executed
    ] == [
        original.observation
        for original, step in zip(episode.steps, done, strict=True)
        if step.index == 0 or noisy.steps[step.index - 1].executed
    ]
    assert Episode.model_validate_json(noisy.model_dump_json()) == noisy


@hypothesis.settings(max_examples=50, deadline=None)
@given(episodes(), st.integers(0, 999))
def test_without_noise_only_the_identity_changes(episode: Episode, z: int) -> None:
    for noise in (Noise.none(), make_noise(everything(0))):
        noisy = perturb_episode(episode, noise, z)
        assert noisy.steps == episode.steps
        changed = {"episode_id": f"e1~z{z}", "perturbation_seed": z}
        assert noisy == episode.model_copy(update=changed)


@hypothesis.settings(max_examples=50, deadline=None)
@given(episodes(), st.integers(0, 999))
def test_a_dead_tool_fails_three_times_each_and_costs_no_measured_thing(episode: Episode, z: int) -> None:
    noisy = perturb_episode(episode, make_noise(settings(timeout=1.0)), z)
    assert [step.executed for step in noisy.steps] == [False, False, False, True] * len(episode.steps)
    for step in noisy.steps:
        original = episode.steps[step.index // 4]
        assert (step.clean or step.observation).state == original.observation.state
        assert step.cost == 50.0
        assert step.tokens_out == (7 if step.executed else 0)
        assert step.progress == (original.progress if step.executed else None)
        assert [p.operator for p in step.perturbations] == ([] if step.executed else ["timeout"])
        if step.index % 4:
            assert step.observation.feedback == noisy.steps[step.index - 1].perturbations[0].detail["message"]


@hypothesis.settings(max_examples=50, deadline=None)
@given(episodes().filter(lambda episode: len(episode.steps) > 0))
def test_perturbing_twice_is_refused(episode: Episode) -> None:
    noisy = perturb_episode(episode, make_noise(everything(0.5)), 1)
    with pytest.raises(R2VError, match="e1~z1 is already perturbed"):
        perturb_episode(noisy, Noise.none(), 2)
