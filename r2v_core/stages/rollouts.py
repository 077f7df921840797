"""What router features, calibration and evaluation share: a routed agent over the benchmark, ready to play jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from r2v_core.agent.live import Job
from r2v_core.agent.proposer import Proposal, Proposer, Scorer
from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.base import Rule
from r2v_core.benchmarks import action_reader
from r2v_core.digest import digest_of
from r2v_core.engines import open_engine
from r2v_core.perturbations import make_noise
from r2v_core.runs.memory import Memory, Scope
from r2v_core.runs.spec import StageContext
from r2v_core.stages.episodes import playing
from r2v_core.stages.task_suite import open_benchmark
from r2v_core.stages.teacher_factory import open_judge, open_teacher
from r2v_core.trajectory import Episode

_PROPOSERS: dict[str, Proposer] = {}
"""The proposer used last: stages that follow each other in one process (ablations) share its models."""


def shared_proposer(ctx: StageContext) -> Proposer:
    """The proposer of the stage's policy, and verifier if it has one; the one at hand where nothing differs."""
    config = ctx.config
    policy, verifier = ctx.inputs["policy"], ctx.inputs.get("verifier") if config.agent.verifier else None
    judged = verifier is not None and config.candidates.scored_by == "judge"
    key = digest_of(
        {
            "policy": [policy.manifest.digest, str(policy.directory)],
            "verifier": verifier and [verifier.manifest.digest, str(verifier.directory)],
            "slm": config.slm.model_dump(mode="json"),
            "candidates": config.candidates.model_dump(mode="json"),
            "judge": [config.judge.model_dump(mode="json"), ctx.spec.run_id] if judged else None,
            "seed": ctx.seed,
        }
    )
    if key not in _PROPOSERS:
        ctx.report.log("loading policy and verifier" if verifier and not judged else "loading the policy")
        _PROPOSERS.clear()
        scorer: Scorer | None = open_judge(ctx) if judged else None
        adapter, read = policy.artifact("adapter"), action_reader(ctx.partition.benchmark)
        engine = open_engine(config.slm, ctx.cache, adapter, ctx.run_dir / "logs")
        if verifier and not judged:
            from r2v_core.models.verifier import Verifier  # loads transformers, which other engines do without

            scorer = Verifier.load(verifier.directory, config.slm, ctx.cache)
        _PROPOSERS[key] = Proposer(engine, scorer, config.candidates, ctx.seed, read)
    return _PROPOSERS[key]


@contextmanager
def proposing(ctx: StageContext, scope: Scope) -> Iterator[Proposer]:
    """The proposer with what it has said in this scope; at the end, the log says how much it was asked."""
    proposer = shared_proposer(ctx)
    asked, computed = proposer.asked, proposer.computed
    proposer.memory = scope.memory("proposals", Proposal)
    yield proposer
    proposer.memory = Memory(Proposal)
    ctx.report.log(
        f"{proposer.asked - asked} proposals requested, {proposer.computed - computed} computed; the others were for "
        "known contexts"
    )


def routed_player(ctx: StageContext, rules: Mapping[str, Rule]) -> Callable[[Sequence[Job], Scope], Iterator[Episode]]:
    """A function that plays jobs with the stage's policy, verifier and teacher; loads the models when first called."""

    def play_jobs(jobs: Sequence[Job], scope: Scope) -> Iterator[Episode]:
        config = ctx.config
        benchmark = open_benchmark(config)
        teacher = open_teacher(ctx, scope)
        with proposing(ctx, scope) as proposer:
            agent = RoutedAgent(proposer, teacher, rules, config.agent, config.slm, benchmark.instructions)
            yield from playing(ctx, benchmark, make_noise(config.perturbations), config.agent.parallel)(jobs, agent)

    return play_jobs
