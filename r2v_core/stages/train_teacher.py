"""Stage 1′: train a teacher that reads what the agent reads, so that noise reaches it and it can be wrong.

The benchmark's own expert plays the tasks of the split ``teacher``, which serves nothing else, as ``collection`` says;
the episodes are perturbed in worlds that serve nothing else, either; and the model that the partition's teacher is
(:mod:`r2v_core.teachers.names`) is fine-tuned on the expert's actions, with many more steps than the small model.
:mod:`r2v_core.teachers.trained` plays with it. With ``benchmark.splits.teacher: 0`` nobody is trained.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("train_teacher")

import json
from collections.abc import Sequence

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import SLMConfig
from r2v_core.digest import digest_of
from r2v_core.perturbations import teacher_seeds
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.memory import Scope
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.collect import LOG, collecting, plan_jobs
from r2v_core.stages.episodes import finish_episodes, record_episodes
from r2v_core.stages.perturb import perturbed_copies
from r2v_core.stages.task_suite import read_tasks
from r2v_core.stages.teacher_factory import GAMES
from r2v_core.teachers.expert import Expert
from r2v_core.trajectory import Episode

PROMPT = ("max_prompt_tokens", "max_action_tokens", "history_steps")
"""Keys of ``slm`` that decide what a teacher reads and says, whatever its weights are."""


def expert_episodes(ctx: StageContext, tasks: Sequence[Task]) -> list[Episode]:
    """The episodes that the teacher learns from, played by the benchmark's own expert (resumable)."""
    expert = Expert("expert")

    def open_expert(scope: Scope) -> Expert:
        return expert

    play = collecting(ctx, open_expert, teacher_provider=expert.provider, teacher_model=expert.model)
    return record_episodes(ctx, plan_jobs(tasks, ctx.config.collection), play, log_name=LOG)


def run(ctx: StageContext) -> StageResult:
    """Collect, perturb and train (resumable)."""
    tasks = read_tasks(ctx.inputs["tasks"], "teacher")
    games = sorted({task.template_id for task in tasks})
    write_atomic(ctx.run_dir / GAMES, json.dumps(games) + "\n")
    if not tasks:
        return _switched_off(ctx)
    from r2v_core.stages.train_bc import clone  # loads torch, which a run of nothing does without

    bc = ctx.config.training.teacher
    episodes = expert_episodes(ctx, tasks)
    clean = sorted((episode for episode in episodes if episode.error is None), key=lambda one: one.episode_id)
    perturbed = list(perturbed_copies(ctx, clean, teacher_seeds(bc.worlds, ctx.seed)))
    slm = taught_model(ctx)
    taught = clone(ctx, clean, perturbed, slm, bc, "training.teacher")
    result = finish_episodes(ctx, episodes, log=LOG, games=GAMES, **taught.artifacts)
    prompt = {key: getattr(slm, key) for key in PROMPT}
    result.digest = digest_of({"adapter": taught.digest, "prompt": prompt})
    result.counts = {"games": len(games), "worlds": bc.worlds, **taught.counts}
    preview = ctx.run_dir / taught.artifacts["preview"]
    told = preview.read_text(encoding="utf-8")
    write_atomic(preview, f"{_summary(slm, games, episodes, bc.worlds)}\n\n{told}")
    return result


def taught_model(ctx: StageContext) -> SLMConfig:
    """The model that is trained, prompted as the small model is."""
    return ctx.config.slm.model_copy(update={"model": ctx.spec.model})


def _summary(slm: SLMConfig, games: Sequence[str], episodes: Sequence[Episode], worlds: int) -> str:
    won = sum(episode.success for episode in episodes)
    return (
        f"`{slm.model}` learns from {len(episodes)} episodes ({won} of them won) of {len(games)} templates that no "
        f"other split has, as they are and in {worlds} worlds each. How often the teacher itself wins: on training "
        "tasks `success_expert` of `trajectory_run`, on held-out tasks `llm_only` of the evaluations."
    )


def _switched_off(ctx: StageContext) -> StageResult:
    ctx.report.log("benchmark.splits.teacher is 0: no teacher is trained, and no stage reads this run")
    write_atomic(ctx.run_dir / "preview.md", "Switched off: `benchmark.splits.teacher` is 0.\n")
    return StageResult(digest=digest_of([]), artifacts={"games": GAMES, "preview": "preview.md"})
