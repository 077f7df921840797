"""What everything that is trained or sampled takes on this machine: time, tokens, share of the card's peak, memory.

    python benchmarks/gpu.py                        one GPU of 80 GB, under eight minutes; 15 GB of disk for a while
    python benchmarks/gpu.py --device cpu --small   the same code here, with a tiny Llama, in a few minutes

Two models: the packaged one, and one of random weights with the shape of Llama 3 8B (its vocabulary is the packaged
tokenizer's, so it has 7.4 B parameters). Each part is a process of its own with a time limit: what fails is a line of
the table. vLLM is measured where there is an environment with it (make vllm), 4 bit where bitsandbytes is installed.

Tokens are those of the data, padding not counted; of sampling, those written. The share of the peak counts 2 FLOP a
weight of the layers and token forward, and 2 more backward, as frozen weights get no gradient (Kaplan et al. 2020;
what checkpointing computes again, attention over positions and the head are left out); for DPO, whose reference is a
second forward pass, 6 in all; for sampling, prompts too. The peak is the data sheet's, dense, in 16 bits.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

PEAKS = {"H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "L40S": 362, "L4": 121}
"""Part of a card's name → TFLOP/s in bfloat16, dense, by NVIDIA's data sheets; the first that fits counts."""
EACH = ("bc", "dpo", "verifier", "sample", "score")


def plan() -> Iterator[tuple[str, str, bool]]:
    """(model, part, whether in 4 bit), in the order in which they run: later parts use what earlier ones trained."""
    yield "packaged", "router", False
    yield from (("packaged", part, False) for part in EACH)
    yield "random", "make", False
    yield from (("random", part, False) for part in EACH)
    if importlib.util.find_spec("bitsandbytes"):
        yield from (("random", part, True) for part in EACH)
    if vllm_installed():
        yield from (("packaged", "vllm", False), ("random", "vllm", False))


def vllm_installed() -> bool:
    """Whether there is an environment with vLLM, made by ``make vllm`` or named by R2V_VLLM."""
    return Path(os.environ.get("R2V_VLLM", Path(__file__).parents[1] / ".venv-vllm"), "bin", "python").exists()


def run_part(command: list[str], limit_s: float, log: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What a part says it took, or {"failed": why}. Its group of processes has ended afterwards."""
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
        )
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {limit_s:.0f} s"}
        finally:
            end(process)
    if process.returncode:
        lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {"failed": lines[-1][:100] if lines else f"exit status {process.returncode}"}
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    return facts


def end(process: subprocess.Popen[str]) -> None:
    """End a part and what it has started: asked first, so that a server of its own ends with it."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def peak_of(card: str) -> float | None:
    """FLOP/s that a card can do at most in bfloat16; None where it is unknown."""
    return next((tera * 1e12 for name, tera in PEAKS.items() if name in card), None)


def line(model: str, part: str, facts: dict[str, Any]) -> str:
    """A row of the table."""
    if "failed" in facts:
        return f"{model:16} {part:9} {facts['failed']}"
    seconds, tokens, flop, peak = facts["seconds"], facts.get("tokens"), facts.get("flop"), peak_of(facts["card"])
    share = "" if flop is None else f"{flop / seconds / peak:.1%}" if peak else "unknown"
    rate = "" if tokens is None else f"{tokens / seconds:,.0f}"
    return f"{model:16} {part:9} {seconds:9.3f} {rate:>10} {share:>8} {facts['memory'] / 2**30:9.1f}"


def main() -> None:
    """Run the parts one after the other and print a row for each as soon as it has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny Llama for the 8 B one, and fewer steps")
    parser.add_argument("--steps", type=int, help="optimiser steps, the first of them not timed (6; small: 3)")
    parser.add_argument("--batch", type=int, help="examples a step (8; small: 2)")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds for each part; for vLLM twice as many")
    parser.add_argument("--total", type=float, default=460.0, help="seconds in all")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    parser.add_argument(
        "--work", type=Path, help="a folder to keep random weights and adapters in; default: none is kept"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--four", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.steps, args.batch = args.steps or (3 if args.small else 6), args.batch or (2 if args.small else 8)
    if args.part:
        from benchmarks.gpu_parts import measure

        with contextlib.redirect_stdout(sys.stderr):
            facts = measure(args)
        print(json.dumps(facts))
        return
    with contextlib.ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        every_part(args, work)


def every_part(args: argparse.Namespace, work: Path) -> None:
    """The table."""
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            sys.exit("--device: there is no CUDA GPU here; see what the script does with --device cpu --small")
    work.mkdir(parents=True, exist_ok=True)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    environment = {**os.environ, **hidden, "TOKENIZERS_PARALLELISM": "false"}
    ends = time.monotonic() + args.total
    print(f"{'model':16} {'part':9} {'step, s':>9} {'tokens/s':>10} {'of peak':>8} {'peak, GiB':>9}", flush=True)
    for model, part, four in plan():
        name = model + ("-4bit" if four else "")
        left = ends - time.monotonic()
        if left < 5:
            print(line(name, part, {"failed": "not begun: the time is up (--total)"}), flush=True)
            continue
        own = ["--part", part, "--name", name, "--work", str(work), *(["--four"] if four else [])]
        log, limit = work / f"{name}-{part}.log", args.limit * (2 if part == "vllm" else 1)  # a server starts first
        facts = run_part([sys.executable, *sys.argv, *own], min(limit, left), log, environment)
        print(line(name, part, facts), flush=True)


if __name__ == "__main__":
    main()
