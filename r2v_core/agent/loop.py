"""The closed loop: many episodes side by side, each step perturbed, decided, carried out and recorded.

The loop knows nothing of models or routers. A *driver* decides for all live episodes at once (so that it can batch);
the loop does the rest the same way for collection, router features and evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from r2v_core.benchmarks.base import Environment, Outcome, Task
from r2v_core.perturbations import Noise
from r2v_core.perturbations.base import Moment
from r2v_core.trajectory import Actor, Decision, Episode, Observation, Perturbation, Step


@dataclass(frozen=True)
class Job:
    """One episode to play."""

    episode_id: str
    task: Task
    z: int | None = None
    replicate: int = 0
    method: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Live:
    """One episode under way, as its driver sees it just before a decision."""

    job: Job
    environment: Environment
    outcome: Outcome
    seen: Observation
    records: list[Perturbation] = field(default_factory=list)
    history: list[Step] = field(default_factory=list)
    previous: Observation | None = None

    @property
    def step(self) -> int:
        """Index of the step about to be decided."""
        return len(self.history)

    @property
    def teacher_calls(self) -> int:
        """Steps that the teacher has played so far."""
        return sum(step.actor == "teacher" for step in self.history)

    @property
    def cost(self) -> float:
        """Cost units spent so far."""
        return sum(step.cost for step in self.history)


@dataclass
class Choice:
    """What a driver decided for one live episode."""

    action: str
    actor: Actor
    decision: Decision | None = None
    expert_action: str | None = None
    alternatives: dict[str, bool] = field(default_factory=dict)
    malformed: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    cost_usd: float = 0.0
    latency_s: float = 0.0


class Driver(Protocol):
    """Decides the next action of every live episode, in order."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """One choice for each live episode."""
        ...


def play(
    jobs: Iterable[Job],
    driver: Driver,
    *,
    open_environment: Callable[[Task], Environment],
    noise: Noise,
    parallel: int,
    benchmark: str,
    seed: int,
    metadata: dict[str, Any],
    on_tick: Callable[[Sequence[Live]], None] | None = None,
) -> Iterator[Episode]:
    """Play all jobs, at most ``parallel`` at a time, yielding each episode as it ends.

    Args:
        noise: applied to jobs with a perturbation seed z; jobs without one are played clean.
        metadata: carried by every episode, below the job's own.
        on_tick: called after every round of decisions with the live episodes.
    """
    queue = iter(jobs)
    live: list[Live] = []
    try:
        while True:
            while len(live) < parallel and (job := next(queue, None)) is not None:
                live.append(_start(job, open_environment(job.task), noise))
            if not live:
                return
            choices = driver.decide(live)
            still = []
            for episode, choice in zip(live, choices, strict=True):
                _advance(episode, choice, noise)
                if episode.outcome.done or episode.step >= episode.job.task.max_steps:
                    episode.environment.close()
                    yield _episode(episode, benchmark, seed, metadata)
                else:
                    _look(episode, noise)
                    still.append(episode)
            live = still
            if on_tick:
                on_tick(live)
    finally:
        for episode in live:
            episode.environment.close()


def _start(job: Job, environment: Environment, noise: Noise) -> Live:
    try:
        outcome = environment.reset()
        episode = Live(job=job, environment=environment, outcome=outcome, seen=outcome.observation)
        _look(episode, noise)
    except BaseException:
        environment.close()
        raise
    return episode


def _moment(episode: Live) -> Moment:
    return Moment(
        z=episode.job.z or 0,
        task_id=episode.job.task.task_id,
        step=episode.step,
        goal=episode.job.task.goal,
        admissible=tuple(episode.environment.admissible()),
        previous=episode.previous,
        current=episode.outcome.observation,
    )


def _look(episode: Live, noise: Noise) -> None:
    """What the agent gets to see of the present observation."""
    episode.seen, episode.records = episode.outcome.observation, []
    if episode.job.z is not None:
        episode.seen, episode.records = noise.observe(_moment(episode), episode.outcome.observation)


def _advance(episode: Live, choice: Choice, noise: Noise) -> None:
    """Carry the choice out, unless a tool failure swallows it, and append the step."""
    before = episode.outcome
    intercepted = noise.intercept(_moment(episode), choice.action) if episode.job.z is not None else None
    records = list(episode.records)
    unplayed = _unplayed(choice, swallowed=intercepted is not None)
    label = None if unplayed is None else episode.environment.peek(unplayed)
    began = time.perf_counter()
    if intercepted is None:
        after = episode.environment.step(choice.action)
        progress = after.progress
    else:
        shown, record = intercepted
        records.append(record)
        after = before.model_copy(update={"observation": shown})
        progress = None
    acting_s = time.perf_counter() - began
    clean = before.observation if episode.seen != before.observation else None
    episode.history.append(
        Step(
            index=episode.step,
            observation=episode.seen,
            clean=clean,
            action=choice.action,
            actor=choice.actor,
            executed=intercepted is None,
            progress=progress,
            remaining=before.remaining,
            expert_action=choice.expert_action,
            perturbations=records,
            alternatives=choice.alternatives,
            decision=_labelled(choice.decision, progress if unplayed is None else label),
            malformed=choice.malformed,
            tokens_in=choice.tokens_in,
            tokens_out=choice.tokens_out,
            cost=choice.cost,
            cost_usd=choice.cost_usd,
            latency_s=choice.latency_s + acting_s,
        )
    )
    episode.previous = before.observation
    episode.outcome = after


def _unplayed(choice: Choice, swallowed: bool) -> str | None:
    """The SLM's chosen action where playing the step won't tell what it is worth (escalated, or swallowed)."""
    decision = choice.decision
    if decision is None or decision.chosen is None:
        return None
    text = decision.candidates[decision.chosen].text
    return text if swallowed or text != choice.action else None


def _labelled(decision: Decision | None, progress: bool | None) -> Decision | None:
    """The decision with the truth about the SLM's chosen action: what the router's probability is judged against."""
    if decision is None or decision.chosen is None:
        return decision
    candidates = list(decision.candidates)
    candidates[decision.chosen] = candidates[decision.chosen].model_copy(update={"progress": progress})
    return decision.model_copy(update={"candidates": candidates})


def _episode(episode: Live, benchmark: str, seed: int, metadata: dict[str, Any]) -> Episode:
    job, task = episode.job, episode.job.task
    return Episode(
        episode_id=job.episode_id,
        benchmark=benchmark,
        task_id=task.task_id,
        template_id=task.template_id,
        goal=task.goal,
        steps=episode.history,
        success=episode.outcome.success,
        score=episode.outcome.score,
        truncated=not episode.outcome.done,
        perturbation_seed=job.z,
        seed=seed,
        metadata={**metadata, "split": task.split, "family": task.family, **job.metadata},
    )
