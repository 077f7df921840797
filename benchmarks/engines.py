"""What a vLLM server samples against what the model in this process does: same weights, same prompts, one run.

    make vllm; python benchmarks/engines.py                 packaged model, 500 prompts; minutes on idle cores
    python benchmarks/engines.py --model PATH --adapter PATH --served

Prompts are states of TextWorld games met in random play. Shown are

- greedy: share of equal replies, among those in which the two likeliest tokens are always more than 0.05 nats apart
  (closer ones are decided by rounding);
- log-probabilities: how far the server's figures for its own replies, greedy and sampled, are from what this process
  computes for the same texts, nats;
- features: the router's, from K samples a prompt; Kolmogorov-Smirnov distance of each and its p-value;
- speed: states a second, K samples each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ks_2samp

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.agent.features import FEATURES, features
from r2v_core.agent.live import Choice, Job, Live
from r2v_core.agent.loop import play
from r2v_core.agent.proposer import best_candidate
from r2v_core.benchmarks import make_benchmark
from r2v_core.config.schema import SLMConfig
from r2v_core.digest import rng
from r2v_core.engines import open_engine
from r2v_core.engines.base import Engine
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models.control_tokens import action_ids
from r2v_core.models.prompt import render_prompt
from r2v_core.perturbations import Noise
from r2v_core.trajectory import Candidate, Observation

CLEAR = 0.05
MIX = [
    {"family": "coin_collector", "level": 104},
    {"family": "custom", "rooms": 2, "objects": 6, "quest_length": 3},
    {"family": "treasure_hunter", "level": 12},
]


class RandomPlay:
    """A driver that draws from what is admissible."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """One action for each live episode."""
        drawn = [(one.environment.admissible(), rng(0, "engines", one.job.episode_id, one.step)) for one in live]
        return [Choice(action=str(draw.choice(known)) if known else "look", actor="explore") for known, draw in drawn]


def states(engine: Engine, slm: SLMConfig, count: int, cache: Path) -> list[str]:
    """Different prompts of states met in random play."""
    benchmark = make_benchmark("textworld", {"mix": MIX, "goals": ["detailed"]}, {"test": max(count // 25, 3)}, 15)
    jobs = [Job(f"{task.task_id}~{i}", task) for task in benchmark.make_tasks(1, cache) for i in range(4)]
    episodes = play(
        jobs,
        RandomPlay(),
        open_environment=lambda task: benchmark.open(task, cache),
        noise=Noise.none(),
        parallel=16,
        benchmark="textworld",
        seed=1,
        metadata={},
    )
    found = {
        render_prompt(engine, slm, benchmark.instructions, e.goal, e.steps[:i], e.steps[i].observation).text
        for e in episodes
        for i in range(len(e.steps))
    }
    return sorted(found, key=lambda prompt: str(rng(0, prompt).random()))[:count]


@torch.inference_mode()
def least_gap(sampler: Sampler, prompt: str, reply: Candidate) -> float:
    """Nats between the two likeliest tokens where a greedy reply is nearest to being another."""
    before = sampler.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = action_ids(sampler.tokenizer, reply.text)[: reply.n_tokens]
    logits = sampler.model(torch.tensor([before + after], device=sampler.model.device)).logits[0, len(before) - 1 : -1]
    top = torch.log_softmax(logits.float(), -1).topk(2, dim=-1).values
    return float((top[:, 0] - top[:, 1]).min())


def same_tokens(sampler: Sampler, reply: Candidate, limit: int) -> bool:
    """Whether a reply that ended by itself is read as the tokens that it was written as."""
    return reply.n_tokens < limit and len(action_ids(sampler.tokenizer, reply.text)) == reply.n_tokens


def differences(sampler: Sampler, prompts: Sequence[str], rows: Sequence[Sequence[Candidate]]) -> list[float]:
    """How far the log-probabilities reported for replies are from this process's, nats."""
    kept = [[reply for reply in row if same_tokens(sampler, reply, sampler.slm.max_action_tokens)] for row in rows]
    scores = sampler.score(prompts, [[reply.text for reply in row] for row in kept], batch_size=16)
    return [
        abs(reply.logprob - score)
        for row, found in zip(kept, scores, strict=True)
        for reply, score in zip(row, found, strict=True)
    ]


def timed(engine: Engine, prompts: Sequence[str], k: int, temperature: float) -> tuple[list[list[Candidate]], float]:
    """Replies, and prompts a second."""
    began = time.perf_counter()
    rows = engine.sample(prompts, range(len(prompts)), k=k, temperature=temperature, batch_size=24)
    return rows, len(prompts) / (time.perf_counter() - began)


def show(name: str, apart: Sequence[float]) -> None:
    """A line on differences."""
    median, high = np.median(apart), np.quantile(apart, 0.99)
    print(f"|Δ log p| of {name}: median {median:.4f}, 99 % below {high:.4f} ({len(apart)} replies)")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--adapter", type=Path, help="a LoRA adapter, written by peft")
    parser.add_argument("--served", action="store_true", help="serve the adapter, do not merge it")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="of a reply at most")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    args = parser.parse_args()
    slm = SLMConfig(model=args.model, dtype=args.dtype, max_action_tokens=args.tokens)
    options = {"adapter": "served" if args.served else "merged"}
    ours = Sampler.load(slm, args.cache, args.adapter)
    prompts = states(ours, slm, args.prompts, args.cache)
    served = slm.model_copy(update={"engine": "vllm", "engine_options": options})
    theirs = open_engine(served, args.cache, args.adapter)
    print(f"{len(prompts)} prompts, weights in {next(ours.model.parameters()).dtype}", flush=True)

    greedy, _ = timed(ours, prompts, 1, 0)
    other, _ = timed(theirs, prompts, 1, 0)
    clear = [least_gap(ours, p, row[0]) > CLEAR for p, row in zip(prompts, greedy, strict=True)]
    equal = [a[0].text == b[0].text for a, b, sure in zip(greedy, other, clear, strict=True) if sure]
    print(
        f"greedy: {np.mean(equal):.2%} of {len(equal)} clear replies are equal; {len(clear) - len(equal)} are unclear"
    )
    both = zip(greedy, other, strict=True)
    show("equal greedy replies", [abs(a[0].logprob - b[0].logprob) for a, b in both if a[0].text == b[0].text])

    mine, speed = timed(ours, prompts, args.k, 1.0)
    sampled, server_speed = timed(theirs, prompts, args.k, 1.0)
    show("the server's sampled replies", differences(ours, prompts, sampled))
    print("feature            mean here  at the server  KS distance  p")
    rows = [
        [features(row, best_candidate(row), [], Observation(state=""), 15, 0, 0) for row in of]
        for of in (mine, sampled)
    ]
    for name in FEATURES:
        here, there = ([row[name] for row in of] for of in rows)
        if len({*here, *there}) > 1:
            test = ks_2samp(here, there)
            print(f"{name:18} {np.mean(here):9.3f} {np.mean(there):14.3f} {test.statistic:12.3f} {test.pvalue:6.3f}")
    print(f"speed: {speed:.1f} states/s here, {server_speed:.1f} at the server, {args.k} samples each")


if __name__ == "__main__":
    main()
