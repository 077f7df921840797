"""Stage 6: roll the policy out where no model was trained, and label every step with what really happened.

The rollouts take the router's and the validation's templates under their own perturbation seeds. At a share of the
steps the teacher plays instead of the small model, so that states after help are in the data as well. The label of a
step is whether the small model's chosen action fails to make progress, told by the environment; where the environment
can't tell, it is the outcome of the episode if the small model played all of it, else the step is left out.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("router_features")

from collections.abc import Sequence

from r2v_core.agent.live import Job
from r2v_core.agent.rules.lottery import at_random
from r2v_core.digest import digest_of
from r2v_core.models.router import RouterRow
from r2v_core.perturbations import seeds_for
from r2v_core.runs.jsonl import write_records
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.episodes import finish_episodes, record_episodes
from r2v_core.stages.rollouts import routed_player
from r2v_core.stages.task_suite import read_tasks
from r2v_core.stages.teacher_factory import count_usage
from r2v_core.trajectory import Episode

FILE = "features.jsonl"
METHOD = "random_router"


def plan_jobs(ctx: StageContext) -> list[Job]:
    """Every router and validation task under every one of its split's seeds."""
    jobs = []
    for split in ("router", "validation"):
        tasks = read_tasks(ctx.inputs["tasks"], split)
        for z in seeds_for(split, ctx.config.perturbations.seeds, ctx.seed):
            for task in tasks:
                for r in range(ctx.config.router_features.episodes_per_task):
                    jobs.append(
                        Job(
                            f"{task.task_id}~z{z}~r{r}",
                            task,
                            z=z,
                            replicate=r,
                            method=METHOD,
                            metadata={"replicate": r},
                        )
                    )
    return jobs


def rows_of(episode: Episode) -> list[RouterRow]:
    """The episode's steps as labelled rows; steps without a label are left out."""
    alone = all(step.actor == "slm" for step in episode.steps)
    rows = []
    for step in episode.steps:
        decision = step.decision
        if decision is None or decision.chosen is None:
            continue
        progress = decision.candidates[decision.chosen].progress
        if progress is None and not alone:
            continue
        rows.append(
            RouterRow(
                task_id=episode.task_id,
                template_id=episode.template_id,
                family=str(episode.metadata["family"]),
                split=episode.metadata["split"],
                z=episode.perturbation_seed,
                episode_id=episode.episode_id,
                step=step.index,
                features=decision.features,
                label=(not episode.success) if progress is None else (not progress),
                label_source="outcome" if progress is None else "progress",
                actor="teacher" if step.actor == "teacher" else "slm",
                failed=None if not step.executed or step.progress is None else not step.progress,
                success=episode.success,
            )
        )
    return rows


def run(ctx: StageContext) -> StageResult:
    """Play the rollouts (resumable) and write ``features.jsonl``."""
    rules = {METHOD: at_random(ctx.config.router_features.takeover_prob, ctx.seed)}
    episodes = record_episodes(ctx, plan_jobs(ctx), routed_player(ctx, rules))
    rows = [row for episode in episodes for row in rows_of(episode)]
    write_records(ctx.run_dir / FILE, rows)
    write_atomic(ctx.run_dir / "preview.md", _preview(rows))
    result = finish_episodes(ctx, episodes, features=FILE, preview="preview.md")
    result.digest = digest_of([result.digest, [row.model_dump(mode="json") for row in rows]])
    result.counts = {"rows": len(rows)} | count_usage(ctx, episodes)
    for split in ("router", "validation"):
        chosen = [row for row in rows if row.split == split]
        result.counts[f"rows_{split}"] = len(chosen)
        result.counts[f"label_share_{split}"] = sum(row.label for row in chosen) / len(chosen) if chosen else 0.0
    return result


def _preview(rows: Sequence[RouterRow]) -> str:
    if not rows:
        return "No labelled rows.\n"
    lines = ["Mean of each feature where the small model's action made progress, and where it failed to:", ""]
    lines += ["| feature | progress | failure |", "| --- | ---: | ---: |"]
    for name in rows[0].features:
        cells = []
        for label in (False, True):
            values = [row.features[name] for row in rows if row.label is label]
            cells.append(f"{sum(values) / len(values):.3f}" if values else "–")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"
