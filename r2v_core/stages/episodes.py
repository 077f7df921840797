"""What every stage that writes episodes shares: resume, live progress, Parquet at finish, the counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from r2v_core.agent.loop import Job
from r2v_core.errors import R2VError
from r2v_core.runs import processes
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import utc_now
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.trajectory import Episode, episodes_digest

TRAJECTORIES = "trajectories.jsonl"
PARQUET = "trajectories.parquet"
CHUNK_ROUNDS = 8
"""Jobs of a chunk, in units of the episodes that are played side by side."""


def record_episodes(
    ctx: StageContext,
    jobs: Sequence[Job],
    play: Callable[[Sequence[Job]], Iterable[Episode]],
    log_name: str | None = None,
    file: str = TRAJECTORIES,
) -> list[Episode]:
    """Play the jobs whose episodes are not on disk yet, appending each as it ends; return all of them.

    A killed stage thus resumes where it stopped: an episode is there whole or not at all, and never twice. Where
    several processes run the stage, each plays every so many-th chunk of the jobs.

    Args:
        play: turns the jobs of a chunk into episodes, in any order.
        log_name: if given, one short line per episode goes to this JSONL file too.
        file: where the episodes are appended; the registry reads those of ``trajectories.jsonl`` as the run's own.

    Raises:
        PartDone: in helper processes, once every process has played its part.
    """
    wanted = {job.episode_id for job in jobs}
    if len(wanted) != len(jobs):
        raise R2VError("two jobs share an episode id; the task suite holds a task twice")
    path = ctx.run_dir / file
    done = _read_done(ctx, path, wanted)
    if done:
        ctx.report.log(f"{len(done)} of {len(jobs)} episodes are on disk already; {len(jobs) - len(done)} to play")
    own = list(chunks(jobs, CHUNK_ROUNDS * ctx.config.agent.parallel))[processes.rank() :: processes.count()]
    left = [[job for job in chunk if job.episode_id not in done] for chunk in own]
    total = len(done) + sum(map(len, left))
    solved = sum(episode.success for episode in done.values())
    with JsonlStore(processes.own_file(path), Episode) as store:
        for chunk in left:
            for episode in play(chunk):
                store.append(episode)
                done[episode.episode_id] = episode
                solved += episode.success
                if log_name:
                    _log(ctx.run_dir / log_name, episode)
                ctx.report.progress("episodes", len(done), total, success=solved / len(done))
    if processes.count() > 1:
        processes.gather(path, Episode, _episode_id)
        done = {episode.episode_id: episode for episode in JsonlStore(path, Episode)}
    return [done[job.episode_id] for job in jobs]


def take_over(ctx: StageContext, episodes: Iterable[Episode], file: str = TRAJECTORIES) -> None:
    """Put another run's episodes into this one's file, each once, also where an earlier attempt was killed doing so."""
    if processes.is_main():
        with JsonlStore(ctx.run_dir / file, Episode) as store:
            store.recover()
            known = {episode.episode_id for episode in store}
            for episode in episodes:
                if episode.episode_id not in known:
                    store.append(episode)
    processes.wait_for_all()


def chunks(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Neighbouring jobs of at least ``size`` (the last chunk may be smaller); all of a task and noise seed together.

    A chunk is played from beginning to end before the next one, with batches of its own: what comes out of it depends
    on no other chunk, whether they are played one after the other or by several processes.
    """
    chunk: list[Job] = []
    for _, group in groupby(jobs, key=lambda job: (job.task.task_id, job.z, job.replicate)):
        chunk += group
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _read_done(ctx: StageContext, path: Path, wanted: set[str]) -> dict[str, Episode]:
    """The wanted episodes that are on disk, those of an earlier attempt's helper processes too."""
    store = JsonlStore(path, Episode)
    if processes.is_main():
        processes.absorb(path, Episode, _episode_id)
        store.recover()
    processes.wait_for_all()
    done = {episode.episode_id: episode for episode in store if episode.episode_id in wanted}
    for problem in store.problems:
        ctx.report.log(f"warning: {problem}; the episode is played again")
    processes.wait_for_all()  # nobody appends while another still reads
    return done


def _episode_id(episode: Episode) -> str:
    return episode.episode_id


def _log(path: Path, episode: Episode) -> None:
    line = {
        "time": utc_now(),
        "episode_id": episode.episode_id,
        "success": episode.success,
        "steps": len(episode.steps),
        "cost": episode.cost,
    }
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")


def finish_episodes(ctx: StageContext, episodes: Iterable[Episode], **artifacts: str) -> StageResult:
    """Write the Parquet file and sum up."""
    episodes = list(episodes)
    write_parquet(ctx.run_dir / PARQUET, episodes, Episode)
    return StageResult(
        digest=episodes_digest(episodes),
        artifacts={"trajectories": TRAJECTORIES, "episodes": PARQUET, **artifacts},
        n_episodes=len(episodes),
        n_success=sum(episode.success for episode in episodes),
        n_steps=sum(len(episode.steps) for episode in episodes),
        cost_usd=sum(step.cost_usd for episode in episodes for step in episode.steps),
    )
