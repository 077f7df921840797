"""Episodes of a stage with what became of the continuations from their states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from r2v_core.agent.continuations import CONTINUATIONS, Start, Tally, play_on
from r2v_core.agent.live import Job
from r2v_core.errors import R2VError
from r2v_core.runs.reporting import Reporter
from r2v_core.trajectory import Episode


def with_continuations(
    episodes: Sequence[tuple[Episode, Sequence[Start]]],
    n: int,
    play_jobs: Callable[[Sequence[Job]], Iterable[Episode]],
    report: Reporter,
    remedy: str,
) -> Iterator[Episode]:
    """The episodes with what became of the continuations from their states, each as soon as it is complete.

    It stands in ``metadata["continuations"]``, {step: {action: [won, played]}}; continuations that ended in an error
    are in neither number.

    Args:
        episodes: each with the states and actions to go on from.
        n: continuations of each of them.
        play_jobs: plays continuations.
        remedy: what to do where an environment can't repeat an episode, for the message.

    Raises:
        R2VError: if every continuation ended in an error.
    """
    by_id = {episode.episode_id: (episode, starts) for episode, starts in episodes}
    left = {episode_id: len(starts) for episode_id, (_, starts) in by_id.items()}
    every = [start for _, starts in by_id.values() for start in starts]
    found: dict[tuple[str, int, str], list[int]] = {}
    tallies: list[Tally] = []
    yield from (episode for episode, starts in by_id.values() if not starts)
    trying = f"actions tried in {next(iter(by_id), '')} and later episodes"
    for start, tally in play_on(every, n, play_jobs):
        tallies.append(tally)
        report.progress(trying, len(tallies), len(every))
        episode, starts = by_id[start.episode.episode_id]
        if tally.played:
            found[episode.episode_id, start.step, start.action] = [tally.won, tally.played]
        left[episode.episode_id] -= 1
        if not left[episode.episode_id]:
            by_step: dict[str, dict[str, list[int]]] = defaultdict(dict)
            for one in starts:
                if at := found.get((episode.episode_id, one.step, one.action)):
                    by_step[str(one.step)][one.action] = at
            yield episode.model_copy(update={"metadata": {**episode.metadata, CONTINUATIONS: dict(by_step)}})
    if missing := n * len(every) - sum(tally.played for tally in tallies):
        said = next(tally.error for tally in tallies if tally.error)
        report.log(f"warning: {missing} of {n * len(every)} continuations ended in an error and are left out; {said}")
        if not any(tally.played for tally in tallies):
            raise R2VError(
                f"no continuation could be played: {said}. Where an environment can't repeat an episode, {remedy}"
            )
