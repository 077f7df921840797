"""Stage 1: collect teacher trajectories.

Three modes of episode on every training task, so that the data holds states on and off the expert's path:

- ``expert``: the teacher plays every step;
- ``explore_start``: a few random actions first, then the teacher, with single random steps in between;
- ``explore_all``: every step is random with a high probability to the end, so that episodes fail as well as succeed
  (the verifier's outcome labels come from these).

With ``--extend`` the episodes of a finished run are taken over as they are, and the same modes are played once more.

At every step the teacher's action is recorded where it is known (in exploratory steps: if the teacher is the
benchmark's own expert), and a few other admissible actions with whether they would make progress.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("collect")

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from r2v_core.agent.advice import ask_teacher
from r2v_core.agent.live import Choice, Job, Live, each
from r2v_core.benchmarks.actions import headline
from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import CollectionConfig
from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise
from r2v_core.runs.fingerprint import BASE
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.memory import Scope
from r2v_core.runs.parquet import read_episodes
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.episodes import finish_episodes, playing, record_episodes, take_over
from r2v_core.stages.merged_inputs import held_out_templates
from r2v_core.stages.task_suite import open_benchmark, read_tasks
from r2v_core.stages.teacher_factory import count_usage, open_teacher
from r2v_core.teachers.base import Advice, Teacher
from r2v_core.trajectory import Episode

LOG = "collection_log.jsonl"
MODES = ("expert", "explore_start", "explore_all")
_NUMBER = re.compile(r"~e(\d+)$")
"""What ends an episode's id: its number among those of its task."""


@dataclass
class Collector:
    """The driver of collection: teacher or exploration, by the mode of each episode."""

    teacher: Teacher
    config: CollectionConfig
    instructions: str
    seed: int
    _offered: dict[str, set[str]] = field(default_factory=dict)
    """Episode → every action that was open at some step of it so far."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """Explore where the mode says so; ask the teacher for all others at once; label alternatives."""
        draws = {one.job.episode_id: rng(self.seed, "collect", one.job.episode_id, one.step) for one in live}
        explored = each(live, lambda one: self._explore(one, draws[one.job.episode_id]))
        asking = [one for one, action in zip(live, explored, strict=True) if action is None]
        advice = dict(zip((one.job.episode_id for one in asking), self._asked(asking), strict=True))
        made = {
            one.job.episode_id: _advised(advice[one.job.episode_id]) if action is None else Choice(action, "explore")
            for one, action in zip(live, explored, strict=True)
        }
        return each(live, lambda one: self._labelled(one, made[one.job.episode_id], draws[one.job.episode_id]))

    def _asked(self, asking: Sequence[Live]) -> list[Advice]:
        return ask_teacher(self.teacher, asking, self.instructions) if asking else []

    def _labelled(self, one: Live, choice: Choice, draw: np.random.Generator) -> Choice:
        """The choice with what else could be done, and after exploration with what the expert would do."""
        if choice.actor == "explore" and self.teacher.provider == "env":
            # another teacher's pupil learns nothing from the benchmark's own expert
            choice = replace(choice, expert_action=one.environment.expert_action())
        return replace(choice, alternatives=self._alternatives(one, choice.action, draw))

    def _explore(self, one: Live, draw: np.random.Generator) -> str | None:
        """A random action, admissible or a slip, where this step is exploratory, else None."""
        mode = one.job.metadata["mode"]
        most = max(self.config.explore_start_steps, 1)  # of use in the mode that there is only where it is not 0
        starts = rng(self.seed, "collect-start", one.job.episode_id).integers(1, most + 1)
        if mode == "expert":
            probability = 0.0
        elif mode == "explore_all":
            probability = self.config.explore_all_prob
        else:
            probability = 1.0 if one.step < starts else self.config.explore_prob
        if draw.random() >= probability:
            return None
        choices = _open_to(one)
        return str(draw.choice(choices)) if choices else None

    def _alternatives(self, one: Live, action: str, draw: np.random.Generator) -> dict[str, bool]:
        """Other actions with their worth: those open at this step, and ones that were so earlier (a typical slip)."""
        offered = self._offered.setdefault(one.job.episode_id, set())
        offered.update(_open_to(one))
        others = sorted(offered - {action})
        picked = [str(other) for other in draw.permutation(others)[: self.config.alternatives]] if others else []
        labelled = {other: one.environment.would_progress(other) for other in picked}
        return {other: label for other, label in labelled.items() if label is not None}


def _advised(answer: Advice) -> Choice:
    return Choice(
        action=answer.action,
        actor="teacher",
        expert_action=None if "malformed" in answer.detail else answer.action,
        malformed=answer.detail.get("malformed"),
        error=answer.error and f"teacher: {answer.error}",
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=answer.cost_usd,
        latency_s=answer.latency_s,
    )


def _open_to(one: Live) -> list[str]:
    """What exploration may play at this step."""
    return [*one.environment.admissible(), *one.environment.hard_negatives()]


def plan_jobs(tasks: Sequence[Task], config: CollectionConfig, first: int = 0) -> list[Job]:
    """The episodes to collect: teacher-led ones in alternating modes, then the purely exploratory ones.

    Args:
        first: number of the first episode of each task; those of a run that is extended come before.
    """
    jobs = []
    for task in tasks:
        for e in range(config.episodes_per_task + config.explore_all_episodes):
            mode = MODES[2] if e >= config.episodes_per_task else MODES[e % 2 if config.explore_start_steps else 0]
            n = first + e
            jobs.append(Job(f"{task.task_id}~e{n}", task, replicate=n, metadata={"mode": mode}))
    return jobs


def collecting(
    ctx: StageContext, open_: Callable[[Scope], Teacher], **metadata: str
) -> Callable[[Sequence[Job], Scope], Iterator[Episode]]:
    """A function that plays jobs of :func:`plan_jobs` as ``collection`` says, with the teacher that ``open_`` opens.

    Args:
        metadata: of the episodes, where it differs from the run's own.
    """
    config, benchmark = ctx.config.collection, open_benchmark(ctx.config)
    play = playing(ctx, benchmark, Noise.none(), config.parallel)

    def play_jobs(jobs: Sequence[Job], scope: Scope) -> Iterator[Episode]:
        collector = Collector(open_(scope), config, benchmark.instructions, ctx.seed)
        return play(jobs, collector, metadata=ctx.identity() | metadata)

    return play_jobs


def run(ctx: StageContext) -> StageResult:
    """Collect every job's episode into ``trajectories.jsonl``."""
    config = ctx.config.collection
    open_teacher(ctx)  # refuses before any work if it can't be asked from here
    before = _episodes_before(ctx)
    jobs = plan_jobs(read_tasks(ctx.inputs["tasks"], "train"), config, first=_next_number(before))
    new = record_episodes(ctx, jobs, collecting(ctx, partial(open_teacher, ctx)), log_name=LOG)
    episodes = [*before, *new]
    write_atomic(ctx.run_dir / "preview.md", _preview(episodes))
    result = finish_episodes(ctx, episodes, log=LOG, preview="preview.md")
    result.counts = _counts(episodes) | count_usage(ctx, new)
    if before:
        result.counts["episodes_before"] = len(before)
        result.cost_usd = sum(step.cost_usd for episode in new for step in episode.steps)
    return result


def _episodes_before(ctx: StageContext) -> list[Episode]:
    """The episodes of the run that is extended, taken over into this one.

    Raises:
        R2VError: if one of them is of a template that today's task suite holds out.
    """
    base = ctx.inputs.get(BASE)
    if base is None:
        return []
    episodes = list(read_episodes(base))
    leaking = {episode.template_id for episode in episodes} & held_out_templates(ctx.inputs["tasks"])
    if leaking:
        raise R2VError(
            f"{base.manifest.run_id} holds episodes of {len(leaking)} templates that the task suite "
            f"{ctx.inputs['tasks'].manifest.run_id} holds out, e.g. '{min(leaking)}'; collect anew"
        )
    take_over(ctx, episodes)
    ctx.report.log(f"building on {base.manifest.run_id} with its {len(episodes)} episodes")
    return episodes


def _next_number(before: Sequence[Episode]) -> int:
    numbers = [int(found[1]) for episode in before if (found := _NUMBER.search(episode.episode_id))]
    return max(numbers, default=-1) + 1


def _of_mode(episodes: Iterable[Episode], mode: str) -> list[Episode]:
    return [episode for episode in episodes if episode.metadata["mode"] == mode]


def _counts(episodes: Sequence[Episode]) -> dict[str, float]:
    counts: dict[str, float] = {"unique_action_sequences": len({episode.action_hash for episode in episodes})}
    for mode in MODES:
        chosen = _of_mode(episodes, mode)
        counts[f"episodes_{mode}"] = len(chosen)
        if chosen:
            counts[f"success_{mode}"] = sum(episode.success for episode in chosen) / len(chosen)
    return counts


def _preview(episodes: Sequence[Episode]) -> str:
    lines = ["| mode | episodes | success | mean steps |", "| --- | ---: | ---: | ---: |"]
    for mode in MODES:
        chosen = _of_mode(episodes, mode)
        if chosen:
            success = sum(episode.success for episode in chosen) / len(chosen)
            steps = sum(len(episode.steps) for episode in chosen) / len(chosen)
            lines.append(f"| {mode} | {len(chosen)} | {success:.1%} | {steps:.1f} |")
    first = episodes[0]
    lines += ["", f"**{first.task_id}** — {first.goal}", ""]
    lines += [f"{step.index + 1}. `{headline(step.action)}` ({step.actor})" for step in first.steps]
    return "\n".join(lines) + "\n"
