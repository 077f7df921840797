"""Stage 8: play the held-out tasks with every method, step by step, and keep the whole trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from r2v_core.agent.live import Job
from r2v_core.agent.rules.lottery import RANDOM, at_random
from r2v_core.agent.rules.scored import R2V
from r2v_core.agent.rules.table import evaluated_methods, find_rule, make_rules
from r2v_core.models.labels import IN_METADATA
from r2v_core.models.router import Router
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import is_main, wait_for_all
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.design import Condition, planned_cells
from r2v_core.stages.episodes import TRAJECTORIES, finish_episodes, record_episodes
from r2v_core.stages.failed_episodes import drop
from r2v_core.stages.rollouts import routed_player
from r2v_core.stages.task_suite import read_tasks
from r2v_core.stages.teacher_factory import count_usage
from r2v_core.trajectory import Episode


def plan_jobs(ctx: StageContext, condition: Condition, label: str) -> list[Job]:
    """The episodes to play, in the order of the design; those that a router's probability decides tell its label."""
    tasks, config = read_tasks(ctx.inputs["tasks"], "test"), ctx.config
    return [
        Job(
            f"{cell.method}~{condition}~{cell.stream}~{cell.task.task_id}",
            cell.task,
            z=cell.z,
            replicate=cell.replicate,
            method=cell.method,
            metadata={"method": cell.method, "condition": condition, "replicate": cell.replicate}
            | ({IN_METADATA: label} if find_rule(cell.method).threshold == "router" else {}),
        )
        for cell in planned_cells(condition, tasks, config.evaluation, config.perturbations.seeds, ctx.seed)
    ]


def evaluate(ctx: StageContext, condition: Condition) -> StageResult:
    """Play all jobs of one condition, resumable per episode; ``random_router`` last, at ``r2v``'s realised share."""
    router = Router.load(ctx.inputs["router"].directory)
    if ctx.config.evaluation.router_threshold is not None:
        router.threshold = ctx.config.evaluation.router_threshold
    methods = evaluated_methods(ctx.config.evaluation)
    rules = make_rules(methods, ctx.config.agent, ctx.seed, router)
    jobs = plan_jobs(ctx, condition, router.label)
    follows = RANDOM.name if R2V.name in methods else None
    first = [job for job in jobs if job.method != follows]
    late = [job for job in jobs if job.method == follows]
    played = record_episodes(ctx, first, routed_player(ctx, rules), last=not late)
    rate = teacher_share(episode for episode in played if episode.metadata["method"] == R2V.name)
    if late:
        played += _at_rate(ctx, late, rate)
    by_id = {episode.episode_id: episode for episode in played}
    episodes = [by_id[job.episode_id] for job in jobs]
    write_atomic(ctx.run_dir / "preview.md", _preview(episodes, methods))
    result = finish_episodes(ctx, episodes, preview="preview.md")
    result.counts = count_usage(ctx, episodes)
    for method in methods:
        chosen = [episode for episode in episodes if episode.metadata["method"] == method]
        result.counts[f"success_{method}"] = sum(episode.success for episode in chosen) / len(chosen)
    return result


def teacher_share(episodes: Iterable[Episode]) -> float:
    """Share of all steps that the teacher played; 0 where there are none."""
    actors = [step.actor for episode in episodes for step in episode.steps]
    return actors.count("teacher") / len(actors) if actors else 0.0


def _at_rate(ctx: StageContext, jobs: Sequence[Job], rate: float) -> list[Episode]:
    """Play jobs whose teacher calls are drawn at this rate, which their episodes' metadata tell.

    What an interrupted attempt played at another rate (r2v's episodes that ended in an error were retried meanwhile)
    is played again.
    """
    ctx.report.log(f"{RANDOM.name} asks at {R2V.name}'s share of these tasks' steps: {rate:.3f}")
    jobs = [replace(job, metadata={**job.metadata, "rate": rate}) for job in jobs]
    ids = {job.episode_id for job in jobs}
    if is_main():
        drop(ctx.run_dir / TRAJECTORIES, lambda one: one["episode_id"] in ids and one["metadata"].get("rate") != rate)
    wait_for_all()
    return record_episodes(ctx, jobs, routed_player(ctx, {RANDOM.name: at_random(rate, ctx.seed)}))


def _preview(episodes: Sequence[Episode], methods: Sequence[str]) -> str:
    lines = [
        "| method | episodes | success | steps | teacher calls | cost units |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for method in methods:
        chosen = [episode for episode in episodes if episode.metadata["method"] == method]
        n = len(chosen)
        steps, cost = sum(len(e.steps) for e in chosen) / n, sum(e.cost for e in chosen) / n
        lines.append(
            f"| {method} | {n} | {sum(e.success for e in chosen) / n:.1%} | {steps:.1f} "
            f"| {teacher_share(chosen):.1%} | {cost:.0f} |"
        )
    if errors := [episode for episode in episodes if episode.error is not None]:
        lines += ["", f"{len(errors)} episodes ended in an error and count as failed; {errors[0].error}"]
    lines += ["", "Each line from agents that played the held-out tasks; the verdict is the benchmark's own."]
    return "\n".join(lines) + "\n"
