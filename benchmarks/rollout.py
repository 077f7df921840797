"""Vectorised evaluation against one episode at a time, and against the model's raw generation, in one process.

    python benchmarks/rollout.py                                packaged small model, about 10 minutes on two idle cores
    python benchmarks/rollout.py --max-steps 6 --repeats 5
    python benchmarks/rollout.py --environments waiting textworld humaneval miniwob swebench

Three figures, each a ratio of what alternates in one run (median over the repeats):

- evaluation: six routing rules on every task, side by side with shared proposals, against the same episodes played one
  after the other, each computing its own proposals (a seventh of them, to save time; steps per second are compared);
- batching alone: the small model's own episodes side by side against one after the other;
- share of raw generation: states per second of that vectorised play against ``Sampler.sample`` on the very prompts it
  asked for, in batches of the same size, with no environment around it.

``--environments`` measures environments instead, with no model: episodes side by side against one by one
(``environments.py``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.environments import SETTINGS, compare
from r2v_core.agent.live import Job
from r2v_core.agent.loop import play
from r2v_core.agent.proposer import Proposer
from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.base import RoutingDecision, Rule
from r2v_core.agent.rules.lottery import at_random
from r2v_core.agent.rules.table import make_rules
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.config.schema import AgentConfig, CandidatesConfig, SLMConfig, TeacherLimitsConfig
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.perturbations import Noise
from r2v_core.teachers import make_teacher
from r2v_core.teachers.context import TeacherContext
from r2v_core.trajectory import Candidate

MIX = [
    {"family": "coin_collector", "level": 104},
    {"family": "custom", "rooms": 2, "objects": 6, "quest_length": 3},
    {"family": "treasure_hunter", "level": 12},
]
FIXED = ["slm_only", "llm_only", "heuristic_router", "oracle_router"]
HORIZON = 15
"""Steps in which the games can be won."""

STRIDE = 7
"""Of the jobs played one after the other; no factor of the numbers of rules and families, so all of them occur."""


class Listening(Sampler):
    """An engine that remembers what it was asked."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prompts: list[str] = []

    def sample(self, prompts: Sequence[str], *args: Any, **kwargs: Any) -> list[list[Candidate]]:
        """As the engine does."""
        self.prompts += prompts
        return super().sample(prompts, *args, **kwargs)


class Bench:
    """A benchmark, an engine, and ways to play."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.slm = SLMConfig(model=args.model)
        self.cache: Path = args.cache
        self.parallel: int = args.parallel
        options, splits = {"mix": MIX, "goals": ["detailed"]}, {"test": args.tasks}
        self.benchmark: Benchmark = make_benchmark("textworld", options, splits, HORIZON)
        tasks = self.benchmark.make_tasks(1, args.cache)
        self.tasks: list[Task] = [task.model_copy(update={"max_steps": args.max_steps}) for task in tasks]
        self.engine = Listening.load(self.slm, args.cache)
        self.agent = AgentConfig()
        self.rules: dict[str, Rule] = make_rules(FIXED, self.agent, 1, None) | {
            "entropy_router": lambda context: RoutingDecision(context.features["entropy"] > 0.5),
            "random_router": at_random(0.3, 1),
        }

    def jobs(self, methods: Sequence[str]) -> list[Job]:
        """Every task with every method, as the evaluation orders them."""
        return [Job(f"{m}~{task.task_id}", task, method=m) for task in self.tasks for m in methods]

    def play(self, jobs: Sequence[Job], parallel: int, shared: bool) -> tuple[float, int]:
        """Seconds and steps: all jobs with one proposer, or each with its own."""
        began, steps = time.perf_counter(), 0
        proposer = self._proposer(parallel)
        for group in [jobs] if shared else [[job] for job in jobs]:
            proposer = proposer if shared else self._proposer(parallel)
            teacher = make_teacher(
                "expert", {}, TeacherLimitsConfig(), TeacherContext(self.cache, self.cache, self.cache)
            )
            driver = RoutedAgent(proposer, teacher, self.rules, self.agent, self.slm, self.benchmark.instructions)
            for episode in play(
                group,
                driver,
                open_environment=lambda task: self.benchmark.open(task, self.cache),
                noise=Noise.none(),
                parallel=parallel,
                benchmark="textworld",
                seed=1,
                metadata={},
            ):
                steps += len(episode.steps)
        return time.perf_counter() - began, steps

    def _proposer(self, parallel: int) -> Proposer:
        return Proposer(self.engine, None, CandidatesConfig(batch_size=max(parallel, 1)), 1)

    def raw(self, prompts: Sequence[str]) -> float:
        """Seconds to sample for these prompts in batches, nothing else."""
        config = CandidatesConfig()
        began = time.perf_counter()
        self.engine.sample(
            prompts, range(len(prompts)), k=config.k, temperature=config.temperature, batch_size=self.parallel
        )
        return time.perf_counter() - began


def every(jobs: Sequence[Job], repeat: int) -> list[Job]:
    """Every so many-th job, others in the next repeat."""
    return list(jobs)[repeat % STRIDE :: STRIDE]


def main() -> None:
    """Alternate and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--max-steps", type=int, default=3, help="steps of each game that are played")
    parser.add_argument("--parallel", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--environments", nargs="+", choices=SETTINGS, help="measure these, and no model")
    args = parser.parse_args()
    if args.environments:
        compare(args.environments, args.repeats, args.cache)
        return
    bench = Bench(args)
    everyone = bench.jobs([*bench.rules])
    alone = bench.jobs(["slm_only"])
    bench.play(alone[:2], 2, True)  # warm-up: threads, allocator, first environment
    ratios: dict[str, list[float]] = {"evaluation": [], "batching alone": [], "share of raw generation": []}
    for repeat in range(args.repeats):
        one_s, one_steps = bench.play(every(everyone, repeat), 1, False)
        all_s, all_steps = bench.play(everyone, args.parallel, True)
        seq_s, seq_steps = bench.play(every(alone, repeat), 1, False)
        bench.engine.prompts.clear()
        vec_s, vec_steps = bench.play(alone, args.parallel, True)
        prompts = list(bench.engine.prompts)
        raw_s = bench.raw(prompts)
        ratios["evaluation"].append((all_steps / all_s) / (one_steps / one_s))
        ratios["batching alone"].append((vec_steps / vec_s) / (seq_steps / seq_s))
        ratios["share of raw generation"].append((len(prompts) / vec_s) / (len(prompts) / raw_s))
        print(
            f"repeat {repeat + 1}: evaluation {all_steps / all_s:.1f} against {one_steps / one_s:.1f} steps/s; "
            f"small model {vec_steps / vec_s:.1f} against {seq_steps / seq_s:.1f} steps/s; "
            f"{len(prompts) / vec_s:.1f} of {len(prompts) / raw_s:.1f} states/s",
            flush=True,
        )
    aims = {"evaluation": "5", "batching alone": "no aim of its own", "share of raw generation": "0.7"}
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f} (aim: {aims[name]})")


if __name__ == "__main__":
    main()
