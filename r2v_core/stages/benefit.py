"""The benefit of a call, measured: play on from a state after the teacher's action, and after the small model's.

*Benefit* is P(success | the teacher plays this step and the small model goes on) − P(success | the small model goes
on). At a share of the logged steps, drawn by lot, both are estimated from N continuations in the same world, played on
by the small model as ``slm_only`` deploys it; the n-th of either kind draw from one random stream (common random
numbers). Where both would do the same, the benefit is 0 and nothing is played.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from r2v_core.agent.continuations import CONTINUATIONS, SmallModel, Start
from r2v_core.agent.live import Job
from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.base import Rule
from r2v_core.digest import rng
from r2v_core.perturbations import make_noise
from r2v_core.runs.memory import Scope
from r2v_core.runs.spec import StageContext
from r2v_core.stages.episodes import playing
from r2v_core.stages.played_on import with_continuations
from r2v_core.stages.rollouts import proposing
from r2v_core.stages.task_suite import open_benchmark
from r2v_core.stages.teacher_factory import open_teacher
from r2v_core.trajectory import Episode, Step

REMEDY = "the router has to learn from progress: router_features.label=progress"


@dataclass(frozen=True)
class Benefit:
    """What both kinds of continuation came to at one step; None each where both actions are the same."""

    with_teacher: list[int] | None = None
    """Won and played after the teacher's action."""
    alone: list[int] | None = None
    """Won and played after the small model's."""

    @property
    def label(self) -> float:
        """The difference of the shares won, at least 0."""
        if self.with_teacher is None or self.alone is None:
            return 0.0
        return max(0.0, self.with_teacher[0] / self.with_teacher[1] - self.alone[0] / self.alone[1])


def sampled(seed: int, share: float, episode_id: str, step: int) -> bool:
    """Whether the benefit is measured at a step, by lot."""
    return bool(rng(seed, "benefit", episode_id, step).random() < share)


def actions_at(step: Step) -> tuple[str, str] | None:
    """What the teacher and what the small model would do at a logged step; None where that is not known of both."""
    teacher = step.action if step.actor == "teacher" else step.expert_action
    decision = step.decision
    if teacher is None or decision is None or decision.chosen is None:
        return None
    return teacher, decision.candidates[decision.chosen].text


def starts_of(episode: Episode, job: Job, measured: Callable[[str, int], bool]) -> list[Start]:
    """Both actions at every step at which the benefit is measured and they differ; none if the episode broke off."""
    if episode.error is not None:
        return []
    return [
        Start(episode, step.index, action, job.task, paired=True)
        for step in episode.steps
        if measured(episode.episode_id, step.index) and (pair := actions_at(step)) and pair[0] != pair[1]
        for action in pair
    ]


def benefit_at(episode: Episode, step: Step) -> Benefit | None:
    """The benefit at a step where it was measured; None if an action is unknown or none of its continuations ended."""
    pair = actions_at(step)
    if pair is None or episode.error is not None:
        return None
    if pair[0] == pair[1]:
        return Benefit()
    found = episode.metadata.get(CONTINUATIONS, {}).get(str(step.index), {})
    if not all(action in found for action in pair):
        return None
    return Benefit(*(found[action] for action in pair))


def player(ctx: StageContext, rules: Mapping[str, Rule]) -> Callable[[Sequence[Job], Scope], Iterator[Episode]]:
    """A function that plays jobs by routing rules and then the continuations from their sampled steps."""
    config, settings = ctx.config, ctx.config.router_features.benefit
    measured = partial(sampled, ctx.seed, settings.state_share)

    def play_jobs(jobs: Sequence[Job], scope: Scope) -> Iterator[Episode]:
        benchmark = open_benchmark(config)
        teacher = open_teacher(ctx, scope)
        play = playing(ctx, benchmark, make_noise(config.perturbations), config.agent.parallel)
        with proposing(ctx, scope) as proposer:
            routed = RoutedAgent(proposer, teacher, rules, config.agent, config.slm, benchmark.instructions, measured)
            played = {episode.episode_id: episode for episode in play(jobs, routed)}
            pairs = [(played[job.episode_id], starts_of(played[job.episode_id], job, measured)) for job in jobs]
            alone = SmallModel(proposer, config.agent, config.slm, benchmark.instructions)
            began = time.perf_counter()
            yield from with_continuations(
                pairs, settings.continuations, partial(play, driver=alone), ctx.report, REMEDY
            )
            tried = sum(len(starts) for _, starts in pairs) // 2
            ctx.report.log(
                f"{tried} states tried by {2 * tried * settings.continuations} continuations in "
                f"{time.perf_counter() - began:.0f} s"
            )

    return play_jobs
