"""Stage 6: roll the policy out where no model was trained, and label its steps with what really happened.

The rollouts take the router's and the validation's templates under their own perturbation seeds. At a share of the
steps the teacher plays instead of the small model, so that states after help are in the data as well. One label a run
(``router_features.label``):

- ``progress``: whether the small model's chosen action fails to make progress, told by the environment; where the
  environment can't tell, the outcome of the episode if the small model played all of it, else the step is left out.
- ``benefit``: what a call adds to the probability of success, at a share of the steps (:mod:`r2v_core.stages.benefit`);
  the others are left out.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("router_features")

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from r2v_core.agent.live import Job
from r2v_core.agent.rules.lottery import at_random
from r2v_core.digest import digest_of
from r2v_core.models.labels import BENEFIT, IN_METADATA, LABELS
from r2v_core.models.router import RouterRow
from r2v_core.perturbations import seeds_for
from r2v_core.runs.jsonl import write_records
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages import benefit
from r2v_core.stages.episodes import finish_episodes, record_episodes
from r2v_core.stages.rollouts import routed_player
from r2v_core.stages.task_suite import read_tasks
from r2v_core.stages.teacher_factory import count_usage
from r2v_core.trajectory import Episode, Step

FILE = "features.jsonl"
METHOD = "random_router"


def plan_jobs(ctx: StageContext) -> list[Job]:
    """Every router and validation task under every one of its split's seeds."""
    settings, jobs = ctx.config.router_features, []
    for split in ("router", "validation"):
        tasks = read_tasks(ctx.inputs["tasks"], split)
        for z in seeds_for(split, ctx.config.perturbations.seeds, ctx.seed):
            for task in tasks:
                for r in range(settings.episodes_per_task):
                    jobs.append(
                        Job(
                            f"{task.task_id}~z{z}~r{r}",
                            task,
                            z=z,
                            replicate=r,
                            method=METHOD,
                            metadata={"replicate": r, IN_METADATA: settings.label},
                        )
                    )
    return jobs


Labelling = Callable[[Episode, Step], "dict[str, Any] | None"]
"""(episode, step) → the fields of a row that the label decides; None: the step is left out."""


def by_progress(episode: Episode, step: Step) -> dict[str, Any] | None:
    """Labels of 0 and 1: the chosen action fails to make progress, or else its episode, played alone, fails."""
    assert step.decision is not None and step.decision.chosen is not None
    progress = step.decision.candidates[step.decision.chosen].progress
    if progress is None and any(other.actor != "slm" for other in episode.steps):
        return None
    return {
        "label": float(not episode.success if progress is None else not progress),
        "label_source": "outcome" if progress is None else "progress",
        "failed": None if not step.executed or step.progress is None else not step.progress,
    }


def by_benefit(measured: Callable[[str, int], bool], episode: Episode, step: Step) -> dict[str, Any] | None:
    """Soft labels: the benefit of a call, where it was measured."""
    if not measured(episode.episode_id, step.index) or (found := benefit.benefit_at(episode, step)) is None:
        return None
    return {
        "label": found.label,
        "label_source": BENEFIT,
        "with_teacher": found.with_teacher,
        "alone": found.alone,
    }


def rows_of(episode: Episode, labelling: Labelling) -> list[RouterRow]:
    """The episode's steps as labelled rows; steps without a label are left out."""
    return [
        RouterRow(
            task_id=episode.task_id,
            template_id=episode.template_id,
            family=str(episode.metadata["family"]),
            split=episode.metadata["split"],
            z=episode.perturbation_seed,
            episode_id=episode.episode_id,
            step=step.index,
            features=step.decision.features,
            actor="teacher" if step.actor == "teacher" else "slm",
            success=episode.success,
            **label,
        )
        for step in episode.steps
        if step.decision is not None and step.decision.chosen is not None
        if (label := labelling(episode, step)) is not None
    ]


def run(ctx: StageContext) -> StageResult:
    """Play the rollouts (resumable) and write ``features.jsonl``."""
    settings = ctx.config.router_features
    rules = {METHOD: at_random(settings.takeover_prob, ctx.seed)}
    if settings.label == BENEFIT:
        play, chunk = benefit.player(ctx, rules), ctx.config.agent.parallel
        measured = partial(benefit.sampled, ctx.seed, settings.benefit.state_share)
        labelling: Labelling = partial(by_benefit, measured)
    else:
        play, chunk, labelling = routed_player(ctx, rules), None, by_progress
    episodes = record_episodes(ctx, plan_jobs(ctx), play, chunk=chunk)
    rows = [row for episode in episodes for row in rows_of(episode, labelling)]
    write_records(ctx.run_dir / FILE, rows)
    write_atomic(ctx.run_dir / "preview.md", _preview(rows, settings.label))
    result = finish_episodes(ctx, episodes, features=FILE, preview="preview.md")
    result.digest = digest_of([result.digest, [row.model_dump(mode="json") for row in rows]])
    result.counts = {"rows": len(rows)} | count_usage(ctx, episodes)
    for split in ("router", "validation"):
        chosen = [row.label for row in rows if row.split == split]
        result.counts[f"rows_{split}"] = len(chosen)
        result.counts[f"label_share_{split}"] = sum(chosen) / len(chosen) if chosen else 0.0
    if settings.label == BENEFIT:
        result.counts |= _tried(rows)
        result.counts["teacher_overheard"] = sum(s.expert_action is not None for e in episodes for s in e.steps)
    return result


def _tried(rows: Sequence[RouterRow]) -> dict[str, float]:
    """What measuring the benefit took, and what came of it."""
    pairs = [(row.with_teacher, row.alone) for row in rows if row.with_teacher and row.alone]
    return {
        "states_tried": len(pairs),
        "continuations": sum(teacher[1] + alone[1] for teacher, alone in pairs),
        "continuations_won_teacher": sum(teacher[0] for teacher, _ in pairs),
        "continuations_won_alone": sum(alone[0] for _, alone in pairs),
        "states_negative": sum(t[0] / t[1] < a[0] / a[1] for t, a in pairs),
    }


def _preview(rows: Sequence[RouterRow], label: str) -> str:
    if not rows:
        return "No labelled rows.\n"
    high = np.array([row.label for row in rows])
    said = LABELS[label]
    lines = [f"Labels: {said.meaning} ({said.share(float(high.mean()))} of {len(rows)} steps).", ""]
    if label == BENEFIT:
        found = _tried(rows)
        half = max(found["continuations"] / 2, 1)
        tried, continuations = int(found["states_tried"]), int(found["continuations"])
        lines += [
            f"At {len(rows) - tried} steps both would do the same. {tried} were tried by {continuations} continuations:"
            f" {found['continuations_won_teacher'] / half:.1%} were won after the teacher's action, "
            f"{found['continuations_won_alone'] / half:.1%} after the small model's. At "
            f"{found['states_negative']:.0f} the teacher's won less often, and the label is 0.",
            "",
        ]
    lines += ["Mean of each feature over the steps, each weighing 1 − label and label:", ""]
    lines += ["| feature | label 0 | label 1 |", "| --- | ---: | ---: |"]
    for name in rows[0].features:
        values = np.array([row.features[name] for row in rows])
        cells = [f"{values @ w / w.sum():.3f}" if w.sum() else "–" for w in (1 - high, high)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"
