"""Prompts with a common beginning: nothing shared, the instructions shared, and each task's goal shared, too.

    python benchmarks/prefixes.py        packaged model; minutes

Prompts are states of a few TextWorld games met in random play, as a round of an evaluation asks about them. The three
sides alternate in this process; each samples K replies to every prompt and scores them with a verifier (untrained, of
the demo's depth). What is sampled has to be the same but for rounding, which may turn a draw.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # python puts this folder first already

from benchmarks.engines import states
from r2v_core.config.schema import SLMConfig
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models import prefixes
from r2v_core.models.hub import load_tokenizer
from r2v_core.models.verifier import HEADS, Verifier, VerifierInfo, build

SHARED, GROUPS = prefixes.shared_length, prefixes._groups
SIDES: dict[str, dict[str, Callable[..., object]]] = {
    "nothing": {"shared_length": lambda tokens: 0, "_groups": GROUPS},
    "instructions": {"shared_length": SHARED, "_groups": lambda tokens, common: [[row] for row in range(len(tokens))]},
    "goals": {"shared_length": SHARED, "_groups": GROUPS},
}


def main() -> None:
    """Alternate the sides and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--layers", type=int, default=16, help="of the verifier")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    args = parser.parse_args()
    slm = SLMConfig(model=args.model)
    sampler = Sampler.load(slm, args.cache)
    info = VerifierInfo(base=slm.model, layers=args.layers, heads=list(HEADS))
    verifier = Verifier(build(slm, args.cache, args.layers), load_tokenizer(slm, args.cache), info)
    prompts = states(sampler, slm, args.prompts, args.cache)
    took: dict[str, dict[str, list[float]]] = {side: {"sampling": [], "scoring": []} for side in SIDES}
    texts = {}
    sampler.sample(prompts[:1], [0], k=1, temperature=1.0, batch_size=1)  # libraries settle
    for repeat in range(args.repeats):
        for side in list(SIDES)[:: 1 if repeat % 2 else -1]:
            vars(prefixes).update(SIDES[side])
            began = time.perf_counter()
            rows = sampler.sample(prompts, range(len(prompts)), k=args.k, temperature=0.7, batch_size=24)
            texts[side] = [[reply.text for reply in row] for row in rows]
            took[side]["sampling"].append(time.perf_counter() - began)
            began = time.perf_counter()
            verifier.score(prompts, [list(dict.fromkeys(row)) for row in texts[side]])
            took[side]["scoring"].append(time.perf_counter() - began)
    for part in ("sampling", "scoring"):
        median = {side: statistics.median(found[part]) for side, found in took.items()}
        for side, found in took.items():
            each = ", ".join(f"{one:.1f}" for one in found[part])
            print(f"{part:9} {side:13} {each} s, ratio to nothing shared {median['nothing'] / median[side]:.2f}")
    flat = {side: [text for row in rows for text in row] for side, rows in texts.items()}
    for side in ("instructions", "goals"):
        same = sum(a == b for a, b in zip(flat["nothing"], flat[side], strict=True))
        print(f"{side}: {same} of {len(flat[side])} replies equal to those with nothing shared")


if __name__ == "__main__":
    main()
