"""The validation tasks, played in closed loop with a scoring rule at one threshold after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from r2v_core.agent.live import Job
from r2v_core.agent.rules.table import at_share, make_rules
from r2v_core.benchmarks.base import Task
from r2v_core.models.router import Router
from r2v_core.perturbations import seeds_of_groups
from r2v_core.runs.spec import StageContext
from r2v_core.stages.episodes import record_episodes
from r2v_core.stages.rollouts import routed_player
from r2v_core.stages.task_suite import read_tasks
from r2v_core.training.router_threshold import Played

FILE = "validation_episodes.jsonl"
CHUNK_ROUNDS = 2
"""Jobs of a chunk, in units of the episodes played side by side: a rule at one threshold plays few, and several
processes are to share them."""


def validation_tasks(ctx: StageContext) -> list[Task]:
    """The tasks that thresholds are calibrated on."""
    return read_tasks(ctx.inputs["tasks"], "validation")


def player(ctx: StageContext, router: Router) -> Callable[[str, float], Played]:
    """A function that plays the validation tasks with a rule at a share of calls.

    Each template is met in worlds of its own, so that its loss is independent of the others'; all rules and shares
    meet the same ones, and share the small model's proposals where they meet the same context. Episodes are kept in
    the run directory, so that an interrupted calibration goes on where it stopped.
    """
    by_template: dict[str, list[Task]] = defaultdict(list)
    for task in validation_tasks(ctx):
        by_template[task.template_id].append(task)
    templates = sorted(by_template)
    worlds = seeds_of_groups("validation", ctx.config.perturbations.seeds, ctx.seed, len(templates))

    def play(rule: str, share: float) -> Played:
        method = at_share(rule, share)
        jobs = [
            Job(f"{method}~z{z}~{task.task_id}", task, z=z, method=method, metadata={"method": method})
            for template, seeds in zip(templates, worlds, strict=True)
            for z in seeds
            for task in by_template[template]
        ]
        rules = make_rules([method], ctx.config.agent, ctx.seed, router)
        failed: dict[str, list[bool]] = {template: [] for template in templates}
        template_of = {task.task_id: template for template, tasks in by_template.items() for task in tasks}
        episodes = record_episodes(
            ctx, jobs, routed_player(ctx, rules), file=FILE, last=False, chunk=CHUNK_ROUNDS * ctx.config.agent.parallel
        )
        for episode in episodes:
            failed[template_of[episode.task_id]].append(not episode.success)
        steps = [step for episode in episodes for step in episode.steps]
        played = Played(
            share=sum(step.actor == "teacher" for step in steps) / len(steps),
            losses=tuple(sum(found) / len(found) for found in failed.values()),
        )
        success = 1 - sum(played.losses) / len(played.losses)
        ctx.report.log(
            f"{method}: teacher calls {played.share:.0%}, success {success:.1%} on {len(templates)} templates"
        )
        return played

    return play
