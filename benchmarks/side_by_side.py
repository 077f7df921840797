"""Stages side by side on the same cores: threads that wait by spinning against threads that wait asleep.

    python benchmarks/side_by_side.py                  packaged model, two processes; minutes

Each process samples replies to the same states of TextWorld games with as many threads as there are cores, alone or
beside the others. OpenMP's threads spin for a while when they have to wait, unless OMP_WAIT_POLICY=passive, which the
local compute sets where several stages may run at once (R2V_STAGES_AT_ONCE above 1). Sides alternate; every process
begins when all of them have loaded the model, and what they sample has to be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # python puts this folder first already

from benchmarks.engines import states
from r2v_core.config.schema import SLMConfig
from r2v_core.digest import digest_of
from r2v_core.engines.transformers.sampler import Sampler

POLICIES = ("active", "passive")
"""As OpenMP's default behaves where there are no more threads than cores, and as OMP_WAIT_POLICY=passive."""


def one_process(args: argparse.Namespace, slm: SLMConfig) -> None:
    """Load the model, wait for a line, sample, and print seconds and digest as JSON."""
    prompts = json.loads(args.states.read_text())
    sampler = Sampler.load(slm, args.cache)
    sampler.sample(prompts[:1], [0], k=1, temperature=1.0, batch_size=1)  # libraries settle
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    rows = sampler.sample(prompts, range(len(prompts)), k=4, temperature=0.7, batch_size=24)
    took = time.perf_counter() - began
    digest = digest_of([[candidate.model_dump(mode="json") for candidate in row] for row in rows])
    print(json.dumps({"seconds": took, "digest": digest}))


def together(processes: int, policy: str, command: list[str]) -> tuple[float, set[str]]:
    """Seconds until the last of some processes has sampled, and the digests of what they did."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if policy == "passive":
        environment["OMP_WAIT_POLICY"] = policy
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdin is not None and process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in started]
    return max(one["seconds"] for one in found), {one["digest"] for one in found}


def main() -> None:
    """Alternate the sides and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument("--states", type=Path, help="given to the processes that this one starts")
    args = parser.parse_args()
    slm = SLMConfig(model=args.model)
    if args.states:
        return one_process(args, slm)
    took: dict[tuple[int, str], list[float]] = {}
    digests: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.json"
        path.write_text(json.dumps(states(Sampler.load(slm, args.cache), slm, args.prompts, args.cache)))
        command = [sys.executable, __file__, "--model", args.model, "--cache", str(args.cache), "--states", str(path)]
        for repeat in range(args.repeats):
            for processes in (1, args.processes):
                for policy in POLICIES[:: 1 if repeat % 2 else -1]:
                    seconds, found = together(processes, policy, command)
                    took.setdefault((processes, policy), []).append(seconds)
                    digests |= found
    for processes in (1, args.processes):
        median = {policy: statistics.median(took[processes, policy]) for policy in POLICIES}
        for policy in POLICIES:
            print(f"{processes} at once, {policy}: {', '.join(f'{one:.1f}' for one in took[processes, policy])} s")
        print(f"{processes} at once: active takes {median['active'] / median['passive']:.2f} of passive's time")
    print("all sampled the same" if len(digests) == 1 else f"{len(digests)} different samples")


if __name__ == "__main__":
    main()
