"""The small model alone, and how an episode would go on: continuations of a state, played to their ends.

A continuation begins like an episode that was played: a fresh environment of the same task, in the same world z,
carries out the same actions, and has to show the same observations. Then one action is given, and the small model plays
on, each continuation with random numbers of its own. The share that succeeds estimates the probability that the small
model, having done this here, wins (Wang et al. 2024, "Math-Shepherd", soft estimation). All continuations are episodes
of the common loop: played side by side, and one whose environment fails ends alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from r2v_core.agent.live import Branch, Choice, Job, Live, each
from r2v_core.agent.proposer import Proposer, best_candidate, step_cost
from r2v_core.agent.routed import failed_here
from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import AgentConfig, SLMConfig
from r2v_core.digest import derive_seed
from r2v_core.models.prompt import render_prompt
from r2v_core.trajectory import Decision, Episode

METHOD = "slm_only"
ON_POLICY = "on_policy"
"""The ``mode`` in the metadata of episodes that the small model plays alone for the verifier."""
CONTINUATIONS = "continuations"
"""In the metadata of episodes that were played on from: {step: {action: [won, played]}}."""


@dataclass
class SmallModel:
    """The driver of episodes that the small model plays alone, by the vote of its K candidates.

    The verifier weighs the votes where the proposer has one; it is the choice that ``slm_only`` makes.
    """

    proposer: Proposer
    agent: AgentConfig
    slm: SLMConfig
    instructions: str
    tried: Callable[[str, int], bool] = lambda episode_id, step: False
    """Whether the environment is asked, at a step of an episode, what each candidate is worth."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """The given action where an episode branches; everywhere else propose for all at once, and vote."""
        given = {i: one.job.branch.action for i, one in enumerate(live) if one.job.branch and _at_branch(one)}
        asking = [one for i, one in enumerate(live) if i not in given]
        chosen = iter(self._proposed(asking))
        return [Choice(given[i], "slm") if i in given else next(chosen) for i in range(len(live))]

    def _proposed(self, live: Sequence[Live]) -> list[Choice]:
        engine, jobs = self.proposer.engine, [one.job for one in live]
        prompts = [
            render_prompt(engine, self.slm, self.instructions, one.job.task.goal, one.history, one.seen) for one in live
        ]
        # the proposer adds the partition's seed
        streams = [derive_seed("alone", job.branch.stream if job.branch else job.episode_id) for job in jobs]
        texts = [prompt.text for prompt in prompts]
        proposals = self.proposer.propose(list(zip(texts, streams, strict=True)))
        choices = []
        for one, prompt, proposal in zip(live, prompts, proposals, strict=True):
            excluded = failed_here(one) if self.agent.self_correction else frozenset()
            best = best_candidate(proposal.candidates, excluded)
            choices.append(
                Choice(
                    action=proposal.candidates[best].text,
                    actor="slm",
                    decision=Decision(method=METHOD, candidates=list(proposal.candidates), chosen=best, cut=prompt.cut),
                    tokens_in=proposal.tokens_in,
                    tokens_out=proposal.tokens_out,
                    tokens_verifier=proposal.tokens_verifier,
                    cost=step_cost(self.agent, proposal.candidates),
                    latency_s=proposal.latency_s,
                )
            )
        looking = {one.job.episode_id: choice for one, choice in zip(live, choices, strict=True) if self._tries(one)}
        some = [one for one in live if one.job.episode_id in looking]
        labels = each(some, lambda one: _labels(one, looking[one.job.episode_id]))
        for one, found in zip(some, labels, strict=True):
            looking[one.job.episode_id].alternatives = found
        return choices

    def _tries(self, one: Live) -> bool:
        return one.job.branch is None and self.tried(one.job.episode_id, one.step)


def _at_branch(one: Live) -> bool:
    return one.job.branch is not None and one.step == len(one.job.branch.steps) - 1


def _labels(one: Live, choice: Choice) -> dict[str, bool]:
    """Candidate that is not played → would it make progress, where the environment can tell."""
    assert choice.decision is not None
    others = [text for text in texts_of(choice.decision) if text != choice.action]  # playing tells of the chosen one
    found = {text: one.environment.would_progress(text) for text in others}
    return {text: label for text, label in found.items() if label is not None}


def texts_of(decision: Decision) -> list[str]:
    """The different candidates of a decision, in order."""
    return list(dict.fromkeys(candidate.text for candidate in decision.candidates))


@dataclass(frozen=True)
class Start:
    """A state of an episode that was played, and the action to go on from it with."""

    episode: Episode
    step: int
    action: str
    task: Task
    paired: bool = False
    """Whether its n-th continuation shares its random numbers with the n-th one after any other action here."""


@dataclass
class Tally:
    """What became of the continuations after one action."""

    won: int = 0
    played: int = 0
    """Those that came to an end; one whose environment failed says nothing."""
    error: str = ""
    """Why the last one that failed did."""


def continuations(start: Start, n: int) -> list[Job]:
    """The n episodes that go on from a state with an action, each with a random stream of its own (or of its pair)."""
    episode, jobs = start.episode, []
    steps = tuple(episode.steps[: start.step + 1])
    for i in range(n):
        episode_id = f"{episode.episode_id}~s{start.step}~{derive_seed(start.action):x}~c{i}"
        stream = f"{episode.episode_id}~s{start.step}~c{i}" if start.paired else episode_id
        branch = Branch(steps, start.action, stream)
        z = episode.perturbation_seed
        jobs.append(Job(episode_id, start.task, z=z, replicate=i, method=METHOD, branch=branch))
    return jobs


def play_on(
    starts: Sequence[Start], n: int, play: Callable[[Sequence[Job]], Iterable[Episode]]
) -> Iterator[tuple[Start, Tally]]:
    """Play n continuations after each start, all side by side; each start with what became of them, as it is complete.

    Args:
        starts: no two alike.
        n: continuations of each.
        play: plays jobs in the world of each (:func:`r2v_core.agent.loop.play`), by :class:`SmallModel`.
    """
    jobs = {start_at: continuations(start, n) for start_at, start in enumerate(starts)}
    belongs = {job.episode_id: start_at for start_at, some in jobs.items() for job in some}
    tallies, ended = [Tally() for _ in starts], [0] * len(starts)
    for episode in play([job for some in jobs.values() for job in some]):
        start_at = belongs[episode.episode_id]
        ended[start_at] += 1
        if episode.error is None:
            tallies[start_at].played += 1
            tallies[start_at].won += episode.success
        else:
            tallies[start_at].error = episode.error
        if ended[start_at] == n:
            yield starts[start_at], tallies[start_at]
