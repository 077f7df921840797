"""A batch of prompts as a tree of tokens, against a padded batch that reads every prompt for itself.

    python benchmarks/prefixes.py                            packaged model; minutes
    python benchmarks/prefixes.py --tokens 96 --prompts 24   long replies

Prompts are states of a few TextWorld games met in random play, as a round of an evaluation asks about them; some are
asked about twice, as continuations of one state do. Each side samples K replies to every prompt and scores them with a
verifier (untrained, of the demo's depth), in a process of its own, so that its peak of memory is its own. What is
sampled has to be the same but for rounding, which may turn a draw.
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
from r2v_core.engines.transformers import rows
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models import verifier as verifiers
from r2v_core.models.hub import load_tokenizer
from r2v_core.models.verifier import HEADS, Verifier, VerifierInfo, build

SIDES = ("tree", "padded")


def peak() -> float:
    """Most memory held so far, MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_side(args: argparse.Namespace, slm: SLMConfig) -> None:
    """Sample and score once and print what it took as JSON."""
    if args.side == "padded":
        for module in (rows, verifiers):
            vars(module)["bears_a_tree"] = lambda model: False
    sampler = Sampler.load(slm, args.cache)
    info = VerifierInfo(base=slm.model, layers=args.layers, heads=list(HEADS))
    verifier = Verifier(build(slm, args.cache, args.layers), load_tokenizer(slm, args.cache), info)
    prompts = json.loads(args.states.read_text())
    sampler.sample(prompts[:1], [0], k=1, temperature=1.0, batch_size=1)  # libraries settle
    before, began = peak(), time.perf_counter()
    found = sampler.sample(prompts, range(len(prompts)), k=args.k, temperature=0.7, batch_size=args.batch)
    sampled = time.perf_counter()
    texts = [[reply.text for reply in row] for row in found]
    verifier.score(prompts, [list(dict.fromkeys(row)) for row in texts], batch_size=args.batch)
    took = {"sampling, s": sampled - began, "scoring, s": time.perf_counter() - sampled, "peak, MiB": peak() - before}
    print(json.dumps({"took": took, "texts": texts}))


def main() -> None:
    """Alternate both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--twice", type=int, default=0, help="prompts that are asked about twice")
    parser.add_argument("--batch", type=int, default=24, help="prompts sampled for together")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="of a reply at most")
    parser.add_argument("--layers", type=int, default=16, help="of the verifier")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--states", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    slm = SLMConfig(model=args.model, max_action_tokens=args.tokens)
    if args.side:
        return one_side(args, slm)
    took: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    texts: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.json"
        prompts = states(Sampler.load(slm, args.cache), slm, args.prompts - args.twice, args.cache)
        path.write_text(json.dumps(prompts + prompts[: args.twice]))
        for repeat in range(args.repeats):
            for side in SIDES if repeat % 2 else SIDES[::-1]:
                command = [sys.executable, *sys.argv, "--side", side, "--states", str(path)]
                result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(result.stdout.splitlines()[-1])
                took[side].append(found["took"])
                texts[side] = [text for row in found["texts"] for text in row]
                print(f"{side:7} {json.dumps(found['took'])}", flush=True)
    for name in took["tree"][0]:
        tree, padded = (statistics.median(row[name] for row in took[side]) for side in SIDES)
        print(f"{name}: tree {tree:.1f}, padded {padded:.1f}, ratio {padded / tree:.2f}")
    same = sum(a == b for a, b in zip(texts["tree"], texts["padded"], strict=True))
    print(f"{same} of {len(texts['tree'])} replies are the same")


if __name__ == "__main__":
    main()
