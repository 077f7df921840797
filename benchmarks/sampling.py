"""Sampling K replies a prompt: memory set aside once against a cache that is concatenated at every token.

    python benchmarks/sampling.py                               packaged model, as an evaluation samples; minutes
    python benchmarks/sampling.py --tokens 128 --prompts 24     long replies

Both sides alternate, each time in a process of its own, with the same prompts (states of TextWorld games met in random
play) and seeds. Shown are the time, the peak of memory beyond what the loaded model takes (of the GPU where there is
one, else of the process), and a digest of all tokens, log-probabilities and entropies: it has to be the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # python puts this folder first already

from benchmarks.engines import states
from r2v_core.config.schema import SLMConfig
from r2v_core.digest import digest_of
from r2v_core.engines.transformers import encoding
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models.prefixes import take

SIDES = ("reserved", "concatenated")
MIB = 2**20


def concatenate() -> None:
    """Replace what sets memory aside by a plain repetition of the rows."""
    vars(encoding)["reserve"] = lambda cache, rows, k, room: take(cache, rows.repeat_interleave(k))


def peak() -> float:
    """Most memory held so far, MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_side(args: argparse.Namespace, slm: SLMConfig) -> None:
    """Sample once and print what it took as JSON."""
    if args.side == "concatenated":
        concatenate()
    prompts = json.loads(args.states.read_text())
    sampler = Sampler.load(slm, args.cache)
    sampler.sample(prompts[:1], [0], k=1, temperature=1.0, batch_size=1)  # libraries settle
    before, began = peak(), time.perf_counter()
    rows = sampler.sample(prompts, range(len(prompts)), k=args.k, temperature=args.temperature, batch_size=args.batch)
    took = time.perf_counter() - began
    digest = digest_of([[candidate.model_dump(mode="json") for candidate in row] for row in rows])
    tokens = sum(candidate.n_tokens for row in rows for candidate in row)
    print(json.dumps({"seconds": took, "peak": peak() - before, "tokens": tokens, "digest": digest}))


def main() -> None:
    """Alternate both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--batch", type=int, default=24, help="prompts sampled for together")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="of a reply at most")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--states", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    slm = SLMConfig(model=args.model, max_action_tokens=args.tokens)
    if args.side:
        return one_side(args, slm)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.json"
        path.write_text(json.dumps(states(Sampler.load(slm, args.cache), slm, args.prompts, args.cache)))
        for repeat in range(args.repeats):
            for side in SIDES if repeat % 2 else SIDES[::-1]:
                command = [sys.executable, *sys.argv, "--side", side, "--states", str(path)]
                result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[side].append(json.loads(result.stdout.splitlines()[-1]))
                print(f"{side:12} {json.dumps(found[side][-1])}", flush=True)
    new, old = found["reserved"], found["concatenated"]
    same = len({row["digest"] for row in new + old}) == 1
    for name, unit in (("seconds", "s"), ("peak", "MiB")):
        here, there = (statistics.median(row[name] for row in rows) for rows in (new, old))
        print(f"{name}: reserved {here:.1f} {unit}, concatenated {there:.1f} {unit}, ratio {there / here:.2f}")
    print(f"digests of tokens, log-probabilities and entropies: {'all equal' if same else 'THEY DIFFER'}")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
