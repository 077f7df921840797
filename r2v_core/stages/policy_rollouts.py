"""Stage 3a′: what becomes of the BC policy's own candidates in its own states, for the verifier to learn from.

The policy plays training tasks in training worlds. At a share of its states each of its K candidates is tried: the
environment says whether it would make progress, and the small model plays on after it several times to the episode's
end (:mod:`r2v_core.agent.continuations`). An episode holds both: the first as the step's ``progress`` and
``alternatives``, the second as ``metadata["continuations"]``, {step: {action: [won, played]}}.

With ``training.verifier.on_policy.episodes: 0`` nothing is played.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("policy_rollouts")

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from r2v_core.agent.continuations import CONTINUATIONS, METHOD, ON_POLICY, SmallModel, Start, texts_of
from r2v_core.agent.live import Job
from r2v_core.digest import rng
from r2v_core.perturbations import make_noise, seeds_for
from r2v_core.runs.jsonl import write_records
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.memory import Scope
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.episodes import TRAJECTORIES, finish_episodes, playing, record_episodes
from r2v_core.stages.played_on import with_continuations
from r2v_core.stages.task_suite import open_benchmark, read_tasks
from r2v_core.stages.teacher_factory import count_usage
from r2v_core.trajectory import Episode


def plan_jobs(ctx: StageContext) -> list[Job]:
    """So many episodes, over training tasks × training worlds in a seeded order; round again where they are more."""
    tasks = read_tasks(ctx.inputs["tasks"], "train")
    places = [(task, z) for task in tasks for z in seeds_for("train", ctx.config.perturbations.seeds, ctx.seed)]
    order = rng(ctx.seed, "policy-rollouts").permutation(len(places))
    drawn = [divmod(n, len(places)) for n in range(ctx.config.training.verifier.on_policy.episodes)]
    return [
        Job(
            f"{task.task_id}~z{z}~p{r}",
            task,
            z=z,
            replicate=r,
            method=METHOD,
            metadata={"mode": ON_POLICY, "method": METHOD, "replicate": r},
        )
        for r, n in drawn
        for task, z in [places[order[n]]]
    ]


def starts_of(episode: Episode, job: Job, tried: Callable[[str, int], bool]) -> list[Start]:
    """What is played on from in an episode: every candidate of the states that are tried; none if it ended in an error.

    A state whose action a tool failure swallowed is left out: in this world any other action would have been, too.
    """
    return [
        Start(episode, step.index, text, job.task)
        for step in episode.steps
        if episode.error is None
        and step.executed
        and step.decision is not None
        and tried(episode.episode_id, step.index)
        for text in texts_of(step.decision)
    ]


REMEDY = "the verifier has to do without: training.verifier.on_policy.episodes=0"


def player(ctx: StageContext) -> Callable[[Sequence[Job], Scope], Iterator[Episode]]:
    """A function that plays jobs with the policy alone and their continuations after them."""
    config, on_policy = ctx.config, ctx.config.training.verifier.on_policy

    def tried(episode_id: str, step: int) -> bool:
        return rng(ctx.seed, "tried", episode_id, step).random() < on_policy.state_share

    def play_jobs(jobs: Sequence[Job], scope: Scope) -> Iterator[Episode]:
        from r2v_core.stages.rollouts import proposing  # loads torch, which a run of no episodes does without

        benchmark = open_benchmark(config)
        with proposing(ctx, scope) as proposer:
            by_small_model = partial(
                playing(ctx, benchmark, make_noise(config.perturbations), config.agent.parallel),
                driver=SmallModel(proposer, config.agent, config.slm, benchmark.instructions, tried),
            )
            played = {episode.episode_id: episode for episode in by_small_model(jobs)}
            pairs = [(played[job.episode_id], starts_of(played[job.episode_id], job, tried)) for job in jobs]
            yield from with_continuations(pairs, on_policy.continuations, by_small_model, ctx.report, REMEDY)

    return play_jobs


def run(ctx: StageContext) -> StageResult:
    """Play the episodes and their continuations (resumable)."""
    jobs = plan_jobs(ctx)
    episodes = record_episodes(ctx, jobs, player(ctx), chunk=ctx.config.agent.parallel)
    if not episodes:
        ctx.report.log("training.verifier.on_policy.episodes is 0: nothing is played, and no stage reads this run")
        write_records(ctx.run_dir / TRAJECTORIES, episodes)
    write_atomic(ctx.run_dir / "preview.md", _preview(episodes))
    result = finish_episodes(ctx, episodes, preview="preview.md")
    result.counts = _counts(episodes) | count_usage(ctx, episodes)
    return result


def _tallies(episodes: Sequence[Episode]) -> list[list[list[int]]]:
    """[won, played] of each candidate tried, state by state."""
    found = (e.metadata.get(CONTINUATIONS, {}) for e in episodes)
    return [list(at.values()) for by_step in found for at in by_step.values()]


def _counts(episodes: Sequence[Episode]) -> dict[str, float]:
    states = _tallies(episodes)
    flat = [tally for state in states for tally in state]
    return {
        "states_tried": len(states),
        "candidates_tried": len(flat),
        "continuations": sum(played for _, played in flat),
        "continuations_won": sum(won for won, _ in flat),
    }


def _preview(episodes: Sequence[Episode]) -> str:
    if not episodes:
        return "Switched off: `training.verifier.on_policy.episodes` is 0.\n"
    states, counts = _tallies(episodes), _counts(episodes)
    won = sum(episode.success for episode in episodes) / len(episodes)
    share = counts["continuations_won"] / max(counts["continuations"], 1)
    mixed = sum(len({won / played for won, played in state}) > 1 for state in states)
    return (
        f"The BC policy alone wins {won:.1%} of {len(episodes)} episodes on training tasks. At {len(states)} of its "
        f"states {counts['candidates_tried']:.0f} candidates were tried; {share:.1%} of {counts['continuations']:.0f} "
        f"continuations were won. At {mixed} states the share depends on the candidate.\n"
    )
