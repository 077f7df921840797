"""Stage 4: K candidate actions a state from the BC policy in perturbed contexts, scored and, where possible, judged.

The environment judges: each chosen episode is replayed to its states, and every candidate is asked of the
environment there (would it make progress?) without being played.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("candidates")

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

from r2v_core.agent.proposer import Proposal, Proposer, Scorer, score_candidates
from r2v_core.benchmarks import action_reader
from r2v_core.benchmarks.actions import headline
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.digest import digest_of, rng
from r2v_core.engines import open_engine
from r2v_core.errors import R2VError
from r2v_core.models.prompt import render_prompt
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.memory import FOLDER, Scope
from r2v_core.runs.parquet import read_episodes
from r2v_core.runs.recording import Chunk, Records
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.task_suite import open_benchmark, read_tasks
from r2v_core.stages.teacher_factory import open_environment, open_judge
from r2v_core.teachers.budget import usage_counts
from r2v_core.training.preferences import CandidateRow
from r2v_core.trajectory import Candidate, Episode

FILE = "candidates.jsonl"
Key = tuple[str, int]
"""(episode id, step)."""


@dataclass(frozen=True)
class State:
    """One stored state to propose at."""

    episode: Episode
    step: int

    @property
    def key(self) -> Key:
        """(episode id, step)."""
        return self.episode.episode_id, self.step


def choose_states(episodes: Sequence[Episode], limit: int, seed: int) -> list[State]:
    """A seeded sample of states with a known expert action, in file order; all of them if ``limit`` is 0."""
    states = [
        State(episode, step.index)
        for episode in episodes
        for step in episode.steps
        if step.expert_action is not None and episode.metadata["split"] == "train"
    ]
    if limit and len(states) > limit:
        kept = sorted(rng(seed, "candidates").choice(len(states), size=limit, replace=False))
        states = [states[i] for i in kept]
    return states


def judge(
    benchmark: Benchmark,
    ctx: StageContext,
    task: Task,
    states: Sequence[State],
    found: dict[tuple[str, int], list[str]],
) -> dict[tuple[str, int], dict[str, bool | None]]:
    """Replay one episode and ask the environment, at each of ``states``, whether each action would make progress."""
    wanted = {state.step: state.key for state in states}
    verdicts: dict[tuple[str, int], dict[str, bool | None]] = {}
    environment = open_environment(ctx, benchmark)(task)
    try:
        environment.reset()
        for step in states[0].episode.steps[: max(wanted) + 1]:
            if step.index in wanted:
                key = wanted[step.index]
                verdicts[key] = {text: environment.would_progress(text) for text in dict.fromkeys(found[key])}
            if step.executed and step.index < max(wanted):
                environment.step(step.action)
    finally:
        environment.close()
    return verdicts


def groups(episodes: Sequence[list[State]], size: int) -> Iterator[list[list[State]]]:
    """Episodes' states, whole episodes together, at least ``size`` states a group but in the last."""
    group: list[list[State]] = []
    for some in episodes:
        group.append(some)
        if sum(map(len, group)) >= size:
            yield group
            group = []
    if group:
        yield group


def _propose_and_judge(
    ctx: StageContext,
    group: Sequence[Sequence[State]],
    known: Collection[Key],
    proposer: Proposer,
    benchmark: Benchmark,
    tasks: dict[str, Task],
) -> Iterator[CandidateRow]:
    """Rows of a group of states; proposed at all together, judged only where the row is not known."""
    states = [state for some in group for state in some]
    prompts = {state.key: _prompt(ctx, proposer, benchmark, state) for state in states}
    contexts = [(prompts[state.key], state.episode.perturbation_seed or 0) for state in states]
    proposals = dict(zip([s.key for s in states], proposer.propose(contexts), strict=True))
    texts = {key: [c.text for c in proposal.candidates] for key, proposal in proposals.items()}
    for some in ([state for state in episode if state.key not in known] for episode in group):
        if not some:
            continue
        verdicts = judge(benchmark, ctx, tasks[some[0].episode.task_id], some, texts)
        for state in some:
            candidates: list[Candidate] = [
                c.model_copy(update={"progress": verdicts[state.key][c.text]}) for c in proposals[state.key].candidates
            ]
            yield CandidateRow(
                episode_id=state.episode.episode_id,
                task_id=state.episode.task_id,
                step=state.step,
                z=state.episode.perturbation_seed,
                prompt=prompts[state.key],
                expert_action=state.episode.steps[state.step].expert_action,
                candidates=candidates,
            )


def _prompt(ctx: StageContext, proposer: Proposer, benchmark: Benchmark, state: State) -> str:
    steps = state.episode.steps
    return render_prompt(
        proposer.engine,
        ctx.config.slm,
        benchmark.instructions,
        state.episode.goal,
        steps[: state.step],
        steps[state.step].observation,
    ).text


def run(ctx: StageContext) -> StageResult:
    """Write ``candidates.jsonl``: one row a state, resumable."""
    config = ctx.config.candidates
    states = choose_states(list(read_episodes(ctx.inputs["perturbed"])), config.max_states, ctx.seed)
    if not states:
        raise R2VError("no state with a known expert action in the training split; collect more (collection.*)")
    rows = _records(ctx).complete(_chunks(ctx, states))
    ordered = [rows[state.key] for state in states]
    counts = _counts(ordered) | usage_counts(ctx.run_dir)
    if config.scored_by == "judge":
        counts |= compare(ordered, _verifier(ctx))
    write_atomic(ctx.run_dir / "preview.md", _preview(ordered, counts))
    return StageResult(
        digest=digest_of([row.model_dump(mode="json") for row in ordered]),
        artifacts={"candidates": FILE, "preview": "preview.md"},
        n_steps=len(ordered),
        counts=counts,
    )


def _records(ctx: StageContext) -> Records[Key, CandidateRow]:
    return Records(ctx.run_dir / FILE, CandidateRow, key=row_key, report=ctx.report, what="states")


def _chunks(ctx: StageContext, states: Sequence[State]) -> list[Chunk[Key, CandidateRow]]:
    """The states of neighbouring episodes together; models are loaded when the first of them is made."""
    tasks = {task.task_id: task for task in read_tasks(ctx.inputs["tasks"])}
    benchmark = open_benchmark(ctx.config)
    proposer = cache(partial(_proposer, ctx))

    def chunk_of(group: Sequence[Sequence[State]]) -> Chunk[Key, CandidateRow]:
        keys = tuple(state.key for some in group for state in some)
        scope = Scope(ctx.run_dir / FOLDER, digest_of(keys), play=FILE)

        def make(known: Collection[Key]) -> Iterator[CandidateRow]:
            proposer().memory = scope.memory("proposals", Proposal)
            return _propose_and_judge(ctx, group, known, proposer(), benchmark, tasks)

        return Chunk(keys, make)

    by_episode: dict[str, list[State]] = defaultdict(list)
    for state in states:
        by_episode[state.episode.episode_id].append(state)
    return [chunk_of(group) for group in groups(list(by_episode.values()), ctx.config.candidates.batch_size)]


def _proposer(ctx: StageContext) -> Proposer:
    config = ctx.config.candidates
    scorer: Scorer = open_judge(ctx) if config.scored_by == "judge" else _verifier(ctx)
    adapter = ctx.inputs["policy"].artifact("adapter")
    engine = open_engine(ctx.config.slm, ctx.cache, adapter, ctx.run_dir / "logs")
    return Proposer(engine, scorer, config, ctx.seed, action_reader(ctx.partition.benchmark))


def _verifier(ctx: StageContext) -> Scorer:
    from r2v_core.models.verifier import Verifier  # loads transformers, which a run without it does without

    return Verifier.load(ctx.inputs["verifier"].directory, ctx.config.slm, ctx.cache)


def compare(rows: Sequence[CandidateRow], verifier: Scorer) -> dict[str, float]:
    """How far the judge that scored the rows agrees with the trained verifier, and each with the environment."""
    from r2v_core.evaluation.agreement import agreement  # loads scikit-learn

    plain = [[candidate.model_copy(update={"score_step": None}) for candidate in row.candidates] for row in rows]
    trained = score_candidates(verifier, [row.prompt for row in rows], plain)
    return agreement(
        [[candidate.score or 0.0 for candidate in row.candidates] for row in rows],
        [[candidate.score or 0.0 for candidate in candidates] for candidates in trained],
        [[candidate.progress for candidate in row.candidates] for row in rows],
    )


def row_key(row: CandidateRow) -> Key:
    """Which state a row is of."""
    return row.episode_id, row.step


def _counts(rows: Sequence[CandidateRow]) -> dict[str, float]:
    flat = [candidate for row in rows for candidate in row.candidates]
    known = [candidate for candidate in flat if candidate.progress is not None]
    mixed = [row for row in rows if len({candidate.progress for candidate in row.candidates}) > 1]
    return {
        "states": len(rows),
        "candidates": len(flat),
        "share_progress": sum(bool(c.progress) for c in known) / len(known) if known else 0.0,
        "share_states_mixed": len(mixed) / len(rows),
        "mean_tokens": sum(candidate.n_tokens for candidate in flat) / len(flat),
    }


def _preview(rows: Sequence[CandidateRow], counts: dict[str, float]) -> str:
    lines = [
        f"{counts['share_progress']:.1%} of candidates make progress; at {counts['share_states_mixed']:.1%} of states "
        "some do and some don't.",
        "",
        "| expert | candidate | log-prob | verifier | progress |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    if "judge_same_best" in counts:
        names = ("judge_undecided", "judge_same_best", "judge_correlation", "judge_auc", "verifier_auc")
        told = ", ".join(f"{name} {counts[name]:.2f}" for name in names if name in counts)
        lines[1:1] = ["", f"Judge and trained verifier: {told}."]
    for row in rows[:4]:
        for candidate in row.candidates:
            score = "" if candidate.score is None else f"{candidate.score:.2f}"
            lines.append(
                f"| `{headline(str(row.expert_action))}` | `{headline(candidate.text)}` | {candidate.logprob:.2f} "
                f"| {score} | {candidate.progress} |"
            )
    return "\n".join(lines) + "\n"
