"""The validation tasks, played in closed loop with a scoring rule at one threshold after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from r2v_core.agent.loop import Job
from r2v_core.agent.rules.table import at_share, make_rules
from r2v_core.benchmarks.base import Task
from r2v_core.models.router import Router
from r2v_core.perturbations import seeds_for
from r2v_core.runs.spec import StageContext
from r2v_core.stages.episodes import record_episodes
from r2v_core.stages.rollouts import routed_player
from r2v_core.stages.task_suite import read_tasks
from r2v_core.training.router_threshold import Played

FILE = "validation_episodes.jsonl"


def validation_tasks(ctx: StageContext) -> list[Task]:
    """The tasks that thresholds are calibrated on."""
    return read_tasks(ctx.inputs["tasks"], "validation")


def player(ctx: StageContext, router: Router) -> Callable[[str, float], Played]:
    """A function that plays every validation task under every validation seed with a rule at a share of calls.

    Episodes are kept in the run directory, so that an interrupted calibration goes on where it stopped. All rules and
    shares meet the same noise, and share the small model's proposals where they meet the same context.
    """
    tasks = validation_tasks(ctx)
    seeds = seeds_for("validation", ctx.config.perturbations.seeds, ctx.seed)

    def play(rule: str, share: float) -> Played:
        method = at_share(rule, share)
        jobs = [
            Job(f"{method}~z{z}~{task.task_id}", task, z=z, method=method, metadata={"method": method})
            for z in seeds
            for task in tasks
        ]
        rules = make_rules([method], ctx.config.agent, ctx.seed, router)
        episodes = record_episodes(ctx, jobs, routed_player(ctx, rules), file=FILE)
        won: dict[int | None, list[bool]] = defaultdict(list)
        for episode in episodes:
            won[episode.perturbation_seed].append(episode.success)
        steps = [step for episode in episodes for step in episode.steps]
        played = Played(
            share=sum(step.actor == "teacher" for step in steps) / len(steps),
            success=tuple(sum(found) / len(found) for found in won.values()),
            n_tasks=len(tasks),
        )
        ctx.report.log(f"{method}: teacher calls {played.share:.0%}, success by seed {_percent(played.success)}")
        return played

    return play


def _percent(rates: tuple[float, ...]) -> str:
    return ", ".join(f"{rate:.0%}" for rate in rates)
