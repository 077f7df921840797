"""What every stage that writes episodes shares: resume, live progress, Parquet at finish, the counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from r2v_core.agent.live import Job, Live
from r2v_core.agent.loop import play
from r2v_core.agent.workers import Threads, useful_threads
from r2v_core.benchmarks.base import Benchmark
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise
from r2v_core.runs import processes
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import utc_now
from r2v_core.runs.memory import FOLDER, Scope
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.recording import Chunk, Records
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.failed_episodes import Failures, drop_errors
from r2v_core.stages.teacher_factory import open_environment
from r2v_core.trajectory import Episode, episodes_digest

TRAJECTORIES = "trajectories.jsonl"
PARQUET = "trajectories.parquet"
CHUNK_ROUNDS = 8
"""Jobs of a chunk, in units of the episodes that are played side by side."""


def record_episodes(
    ctx: StageContext,
    jobs: Sequence[Job],
    play: Callable[[Sequence[Job], Scope], Iterable[Episode]],
    log_name: str | None = None,
    file: str = TRAJECTORIES,
    last: bool = True,
    chunk: int | None = None,
) -> list[Episode]:
    """Play the jobs whose episodes are not on disk yet, appending each as it ends; return all of them.

    A killed stage resumes where it stopped (:mod:`r2v_core.runs.recording`); a chunk of jobs that it left unfinished is
    played from its beginning, so that the episodes are those of a stage that ran through.

    Args:
        play: turns the jobs of a chunk into episodes, in any order; what models say belongs into the scope.
        log_name: if given, one short line per episode goes to this JSONL file too.
        file: where the episodes are appended; the registry reads those of ``trajectories.jsonl`` as the run's own.
        last: whether helper processes end with these episodes; else every process gets all of them and goes on.
        chunk: jobs of a chunk at least; by default ``CHUNK_ROUNDS`` times those that are played side by side.

    Raises:
        R2VError: if too many episodes end in an error (:mod:`r2v_core.stages.failed_episodes`).
        PartDone: in helper processes, once every process has played its part, if these episodes are the last; in a
            shard once it has played its own.
    """
    ids = {job.episode_id for job in jobs}
    if len(ids) != len(jobs):
        raise R2VError("two jobs share an episode id; the task suite holds a task twice")
    retry, sharded = ctx.config.episodes.retry_errors, processes.shard() is not None
    own_file = processes.rank_file(ctx.run_dir / file)
    if retry and (processes.is_main() or sharded) and (again := drop_errors(own_file, ids)):
        ctx.report.log(f"{again} episodes that ended in an error are played again")
    processes.wait_for_all()
    counted: Counter[str] = Counter()
    failures = Failures(ctx.config.episodes, len(jobs), ctx.report.log)

    def on_record(episode: Episode, new: bool) -> None:
        counted.update(episodes=1, solved=episode.success)
        if new and log_name:
            _log(processes.rank_file(ctx.run_dir / log_name), episode)
        if new or not (sharded and retry):  # those of before, the main process plays again
            failures.count(episode, new)

    def chunk_of(group: Sequence[Job]) -> Chunk[str, Episode]:
        keys = tuple(job.episode_id for job in group)
        return Chunk(keys, lambda known: play(group, scope_of(ctx.run_dir, group)))

    records: Records[str, Episode] = Records(
        ctx.run_dir / file,
        Episode,
        key=lambda episode: episode.episode_id,
        report=ctx.report,
        what="episodes",
        facts=lambda: {"success": counted["solved"] / counted["episodes"]},
        on_record=on_record,
        same=lambda before, after: episodes_digest([before]) == episodes_digest([after]),
        last=last,
    )
    size = chunk or CHUNK_ROUNDS * ctx.config.agent.parallel
    done = records.complete([chunk_of(group) for group in chunks(jobs, size)])
    if log_name and processes.is_main():
        _gather_log(ctx.run_dir / log_name)
    if processes.count() > 1:
        failures.recount(done[job.episode_id] for job in jobs)
    return [done[job.episode_id] for job in jobs]


def playing(ctx: StageContext, benchmark: Benchmark, noise: Noise, parallel: int) -> Callable[..., Iterator[Episode]]:
    """:func:`r2v_core.agent.loop.play` in a stage's environments, ``parallel`` at a time, under its seed and identity.

    Jobs and driver are left to be given.
    """
    return partial(
        play,
        open_environment=open_environment(ctx, benchmark),
        noise=noise,
        parallel=parallel,
        benchmark=ctx.partition.benchmark,
        seed=ctx.seed,
        metadata=ctx.identity(),
        threads=threads_for(ctx, benchmark, parallel),
        on_round=partial(_tell, ctx.report),
    )


def _tell(report: Reporter, live: Sequence[Live]) -> None:
    steps = [one.step + 1 for one in live]
    report.working(f"{len(live)} episodes side by side, at steps {min(steps)} to {max(steps)}")


def threads_for(ctx: StageContext, benchmark: Benchmark, parallel: int) -> Threads:
    """The threads in which ``parallel`` environments of the stage's benchmark work."""
    config = ctx.config.episodes
    count = useful_threads(benchmark.concurrency, parallel, processes.count())
    return Threads(min(config.workers or count, parallel) if count else 0, config.patience_s)


def scope_of(run_dir: Path, jobs: Sequence[Job]) -> Scope:
    """What jobs on the same tasks in the same worlds share within a run, whatever the methods that play them."""
    places = sorted({(job.task.task_id, job.z or 0, job.replicate) for job in jobs})
    play = digest_of([job.episode_id for job in jobs])
    return Scope(run_dir / FOLDER, digest_of(places)[:20], play[:20])


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


def _log(path: Path, episode: Episode) -> None:
    line = {
        "time": utc_now(),
        "episode_id": episode.episode_id,
        "success": episode.success,
        "steps": len(episode.steps),
        "cost": episode.cost,
        **({"error": episode.error} if episode.error else {}),
    }
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")


def _gather_log(path: Path) -> None:
    """Put the lines of other processes, on other nodes maybe, into the run's own file."""
    for part in processes.rank_files(path):
        with path.open("ab") as handle:
            handle.write(part.read_bytes())
        part.unlink()


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
