"""Behaviour cloning against a bare PyTorch loop: the same model, LoRA, examples and batches, in one process.

    python benchmarks/training.py                       packaged small model, about 5 minutes on two idle cores
    python benchmarks/training.py --steps 12 --repeats 5

The bare loop is the fastest that is easy to write: forward, logits at the labelled positions only, cross-entropy,
backward, clip, AdamW, in the same mixed precision. Both are timed from the end of the first optimiser step to the end
of the last, alternating, so that both meet the same machine; reported is the median over the repeats of the ratio of
tokens per second, padding not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from r2v_core.config.schema import BCConfig, LoRAConfig, SLMConfig
from r2v_core.digest import derive_seed
from r2v_core.models.hub import load_lm, load_tokenizer
from r2v_core.runs.reporting import Reporter
from r2v_core.training.adapters import lora_config
from r2v_core.training.bc import Example, tokenize, train_bc
from r2v_core.training.examples import Renderer, instructions_of
from r2v_core.training.loop import length_grouped_order, model_dtype
from r2v_core.training.run import TrainingRun
from r2v_core.trajectory import Observation, Step

WORDS = ["lamp", "table", "door", "key", "apple", "fridge", "north", "south", "closed", "open", "kitchen", "hall"]


class Clock(Reporter):
    """Remembers when each optimiser step was reported."""

    def __init__(self) -> None:
        super().__init__("benchmark")
        self.times: list[float] = []

    def log(self, message: str) -> None:
        """Says nothing."""

    def progress(self, what: str, done: int, total: int, **facts: object) -> None:
        """Called after every optimiser step."""
        self.times.append(time.perf_counter())


def make_examples(renderer: Renderer, n: int) -> list[Example]:
    """Prompts of 130 to 250 tokens and actions of three words, as in TextWorld."""
    draw = random.Random(0)
    examples = []
    for _ in range(n):
        state = " ".join(draw.choices(WORDS, k=draw.randint(40, 150)))
        step = Step(index=0, observation=Observation(state=state), action="look", actor="teacher")
        prompt = renderer.render("Put the apple on the table.", [], step)
        examples.append(Example(prompt, " ".join(draw.choices(WORDS, k=3)), False))
    return examples


def ours(
    examples: list[Example], renderer: Renderer, slm: SLMConfig, lora: LoRAConfig, bc: BCConfig, cache: Path
) -> float:
    """Seconds for all optimiser steps but the first."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        train_bc(examples, renderer, slm, lora, bc, cache, TrainingRun(Path(folder), "b", "train_bc", 1, clock))
    return clock.times[-1] - clock.times[0]


def bare(
    batches: list[list[dict[str, list[int]]]], slm: SLMConfig, lora: LoRAConfig, bc: BCConfig, cache: Path, pad: int
) -> float:
    """The same for a plain loop."""
    from peft import get_peft_model

    torch.manual_seed(0)
    model = load_lm(slm, cache)
    dtype, device = model_dtype(model), model.device
    model = get_peft_model(model, lora_config(lora, task_type="CAUSAL_LM")).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimiser = torch.optim.AdamW(trained, lr=bc.learning_rate)
    inner = model.get_base_model()
    times = []
    for rows in batches:
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.tensor([row["input_ids"] + [pad] * (width - len(row["input_ids"])) for row in rows], device=device)
        labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows], device=device)
        mask = torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows], device=device
        )
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
            hidden = inner.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            keep = labels[:, 1:] != -100
            logits = inner.lm_head(hidden[:, :-1][keep])
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, bc.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter())
    return times[-1] - times[0]


def main() -> None:
    """Alternate both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps a repeat; the first is not timed")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("data/cache"))
    args = parser.parse_args()
    slm, lora = SLMConfig(model=args.model), LoRAConfig()
    bc = BCConfig(max_steps=args.steps, batch_size=args.batch_size, save_steps=10_000)
    tokenizer = load_tokenizer(slm, args.cache)
    renderer = Renderer(tokenizer, slm, instructions_of("textworld"))
    examples = make_examples(renderer, args.steps * args.batch_size)
    rows = tokenize(examples, renderer)
    order = length_grouped_order([len(row["input_ids"]) for row in rows], bc, 1, derive_seed(1, "train_bc", "order"))
    size = args.batch_size
    batches = [[rows[i] for i in order[n : n + size]] for n in range(0, len(order), size)]
    tokens = sum(len(row["input_ids"]) for batch in batches[1:] for row in batch)
    ratios = []
    for repeat in range(args.repeats):
        runs = {"bare": lambda: bare(batches, slm, lora, bc, args.cache, int(tokenizer.pad_token_id or 0)),
                "ours": lambda: ours(examples, renderer, slm, lora, bc, args.cache)}  # fmt: skip
        names = ["bare", "ours"] if repeat % 2 == 0 else ["ours", "bare"]
        took = {name: runs[name]() for name in names}
        ratios.append(took["bare"] / took["ours"])
        print(
            f"repeat {repeat + 1}: bare {tokens / took['bare']:.0f}, ours {tokens / took['ours']:.0f} tokens/s, "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"BC against a bare loop: {statistics.median(ratios):.2f} of its tokens per second (aim: at least 0.9)")


if __name__ == "__main__":
    main()
