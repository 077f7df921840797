"""One step of one episode: the choice carried out in its environment, unless noise swallows it, and recorded."""

from __future__ import annotations

import time
from typing import Any

from r2v_core.agent.guarded import EpisodeFailed, GuardedEnvironment
from r2v_core.agent.live import Branch, Choice, Job, Live
from r2v_core.agent.workers import Workers
from r2v_core.perturbations import Noise
from r2v_core.perturbations.base import StepContext
from r2v_core.trajectory import Decision, Episode, Step


def started(job: Job, environment: GuardedEnvironment, workers: Workers, noise: Noise) -> Live:
    """An episode whose environment is open and has shown its first observation, or that of the state it branches at.

    Raises:
        EpisodeFailed: if the environment can't be opened, reset or looked at, or does not repeat the earlier episode.
    """
    environment.open()
    outcome = environment.reset()
    episode = Live(job=job, environment=environment, outcome=outcome, seen=outcome.observation, workers=workers)
    _look(episode, noise)
    if job.branch is not None:
        _replay(episode, job.branch, noise)
    return episode


def _replay(episode: Live, branch: Branch, noise: Noise) -> None:
    """Bring an episode to the state where it leaves an earlier one, whose actions are carried out again."""
    *before, last = branch.steps
    for step in before:
        same = episode.seen == step.observation
        if not same or carried_out(episode, Choice(step.action, step.actor), noise):
            break
    if episode.step < len(before) or episode.seen != last.observation:
        said = f"environment: step {episode.step} came out differently when the episode's actions were repeated"
        raise EpisodeFailed(episode.job.episode_id, said)


def carried_out(episode: Live, choice: Choice, noise: Noise) -> bool:
    """Carry a choice out and look at what came of it; whether the episode is over now, and its environment closed.

    Raises:
        EpisodeFailed: if the environment fails.
    """
    _advance(episode, choice, noise)
    over = episode.outcome.done or episode.step >= episode.job.task.max_steps
    if over:
        episode.environment.close()
    else:
        _look(episode, noise)
    return over


def _step_context(episode: Live) -> StepContext:
    return StepContext(
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
        episode.seen, episode.records = noise.observe(_step_context(episode), episode.outcome.observation)


def _advance(episode: Live, choice: Choice, noise: Noise) -> None:
    """Carry the choice out, unless a tool failure swallows it, and append the step."""
    before = episode.outcome
    intercepted = noise.intercept(_step_context(episode), choice.action) if episode.job.z is not None else None
    records = list(episode.records)
    unplayed = _unplayed(choice, swallowed=intercepted is not None)
    label = None if unplayed is None else episode.environment.would_progress(unplayed)
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
            tokens_teacher_in=choice.tokens_teacher_in,
            tokens_teacher_out=choice.tokens_teacher_out,
            tokens_verifier=choice.tokens_verifier,
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


def episode_record(
    job: Job, played: Live | None, benchmark: str, seed: int, metadata: dict[str, Any], error: str | None
) -> Episode:
    """The record of an episode, as far as it was played; one that ended in an error is never a success."""
    task = job.task
    outcome = played.outcome if played is not None and error is None else None
    return Episode(
        episode_id=job.episode_id,
        benchmark=benchmark,
        task_id=task.task_id,
        template_id=task.template_id,
        goal=task.goal,
        steps=played.history if played is not None else [],
        success=outcome is not None and outcome.success,
        score=outcome.score if outcome is not None else 0.0,
        truncated=outcome is not None and not outcome.done,
        perturbation_seed=job.z,
        seed=seed,
        metadata={
            **metadata,
            "split": task.split,
            "family": task.family,
            **job.metadata,
            **({"error": error} if error else {}),
            **({"verdict_flags": outcome.flags} if outcome is not None and outcome.flags else {}),
        },
    )
