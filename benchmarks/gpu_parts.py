"""The parts of benchmarks/gpu.py: each trains, samples or scores as the project does, and says what it took."""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.training import Clock, make_examples
from r2v_core.config.schema import (
    AgentConfig,
    BCConfig,
    DPOConfig,
    LoRAConfig,
    OptimConfig,
    RouterConfig,
    SLMConfig,
    VerifierConfig,
)
from r2v_core.engines import open_engine
from r2v_core.models.hub import device, load_tokenizer, torch_dtype
from r2v_core.models.verifier import Verifier
from r2v_core.training.adapters import ADAPTER
from r2v_core.training.bc import train_bc
from r2v_core.training.consistency import ContextPair
from r2v_core.training.dpo import train_dpo
from r2v_core.training.examples import Renderer, instructions_of
from r2v_core.training.lagrangian import FailureModel, Rollouts
from r2v_core.training.preferences import Pair
from r2v_core.training.router import train_net
from r2v_core.training.run import TrainingRun
from r2v_core.training.verifier import train_verifier
from r2v_core.training.verifier_labels import LabelledState

PACKAGED = "smollm2-135m-instruct"
LARGE = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
TINY = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8}
ACTIONS = ["take lamp", "open door", "go north", "look"]
Facts = dict[str, Any]


class Bench:
    """What the parts share: a model, made-up data of TextWorld's lengths, and a folder for what is written."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.cache, self.steps, self.batch = args.cache, args.steps, args.batch
        self.folder = args.work / args.name
        model = PACKAGED if args.name == "packaged" else str(args.work / "random")
        self.slm = SLMConfig(model=model, quantization="4bit" if args.four else "none")
        self.renderer = Renderer(load_tokenizer(self.slm, self.cache), self.slm, instructions_of("textworld"))
        self.examples = make_examples(self.renderer, self.steps * self.batch)
        self.prompts = [example.prompt for example in self.examples]
        self.lengths = [len(self.renderer.encode(prompt)) for prompt in self.prompts]
        self.lora = LoRAConfig()
        self.clock = Clock()

    def run(self, stage: str) -> TrainingRun:
        """A training in a folder of its own."""
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        return TrainingRun(folder, "b", stage, 1, self.clock)

    def optim(self, section: type[OptimConfig]) -> Any:
        """Few steps, no checkpoint among them."""
        return section(max_steps=self.steps, batch_size=self.batch, save_steps=10_000)

    def per_step(self, tokens: int, passes: int) -> Facts:
        """Facts of a training whose examples hold ``tokens`` in all; its first step is not timed."""
        times = self.clock.times
        seconds = (times[-1] - times[0]) / (len(times) - 1)
        return {
            "seconds": seconds,
            "tokens": tokens / self.steps,
            "flop": passes * 2 * self.weights() * tokens / self.steps,
        }

    def weights(self) -> int:
        """Weights of the transformer layers: what a token is multiplied with."""
        from transformers import AutoConfig, AutoModelForCausalLM

        from r2v_core.models.hub import resolve_model

        config = AutoConfig.from_pretrained(resolve_model(self.slm.model, self.cache))
        with torch.device("meta"):
            layers = AutoModelForCausalLM.from_config(config).base_model.layers
        return sum(weight.numel() for weight in layers.parameters())

    def adapter(self) -> Path:
        """The adapter that behaviour cloning left."""
        found = self.folder / "train_bc" / ADAPTER
        if not found.is_dir():
            raise SystemExit("needs the part bc, which has not ended well")
        return found


def make(args: argparse.Namespace) -> Facts:
    """Draw the random model's weights on the device and write them, with the packaged tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(SLMConfig(model=PACKAGED), args.cache)
    shape = TINY if args.small else LARGE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=shape["num_attention_heads"] // 4,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch_dtype("auto"),
        **shape,
    )
    began, default = time.perf_counter(), torch.get_default_dtype()
    torch.set_default_dtype(torch_dtype("auto"))
    with device():
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(default)
    model.save_pretrained(args.work / "random")
    tokenizer.save_pretrained(args.work / "random")
    return {"seconds": time.perf_counter() - began}


def bc(bench: Bench) -> Facts:
    """Behaviour cloning of a LoRA adapter."""
    run, section = bench.run("train_bc"), bench.optim(BCConfig)
    train_bc(bench.examples, bench.renderer, bench.slm, bench.lora, section, bench.cache, run)
    actions = sum(len(bench.renderer.encode_action(example.action)) for example in bench.examples)
    return bench.per_step(sum(bench.lengths) + actions, passes=2)


def dpo(bench: Bench) -> Facts:
    """Preferences and the consistency term; tokens of the pairs alone."""
    pairs = [Pair(example.prompt, example.action, "look around") for example in bench.examples]
    twins = [ContextPair(a, b, "open door") for a, b in zip(bench.prompts, bench.prompts[1:], strict=False)]
    run, section = bench.run("train_dpo"), bench.optim(DPOConfig)
    train_dpo(pairs, twins, bench.renderer, bench.slm, bench.adapter(), section, bench.cache, run)
    actions = sum(len(bench.renderer.encode_action(text)) for pair in pairs for text in (pair.chosen, pair.rejected))
    return bench.per_step(2 * sum(bench.lengths) + actions, passes=3)


def verifier(bench: Bench) -> Facts:
    """The verifier's adapter and heads, four actions a state."""
    known = [(i % 2 == 0, True, False, i % 3 == 0) for i in range(len(bench.prompts))]
    states = [
        LabelledState(prompt, f"t{i}", tuple(ACTIONS), labels, (labels[0], None, None, None), f"e{i}")
        for i, (prompt, labels) in enumerate(zip(bench.prompts, known, strict=True))
    ]
    run, section = bench.run("train_verifier"), bench.optim(VerifierConfig)
    train_verifier(states, [], bench.renderer, bench.slm, bench.lora, section, bench.cache, run)
    return bench.per_step(_with_actions(bench), passes=2)


def _with_actions(bench: Bench) -> int:
    return sum(bench.lengths) + len(bench.lengths) * sum(len(bench.renderer.encode_action(text)) for text in ACTIONS)


def router(bench: Bench) -> Facts:
    """The router's Lagrangian net on 10,000 made-up steps; on the CPU always. A step is an epoch."""
    draw = torch.Generator().manual_seed(0)
    episodes = torch.arange(10_000) // 10
    rollouts = Rollouts(
        x=torch.randn(10_000, 20, generator=draw),
        label=(torch.rand(10_000, generator=draw) < 0.3).float(),
        episode=episodes,
        lengths=torch.full((1000,), 10.0),
        seed=torch.arange(1000) % 5,
        episodes_per_seed=torch.full((5,), 200.0),
    )
    folder = bench.run("train_router").run_dir
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    times: list[float] = []
    train_net(
        rollouts,
        FailureModel(0.05, 0.0, 1.0),
        RouterConfig(epochs=bench.steps * 3),
        AgentConfig(),
        1,
        folder,
        on_epoch=lambda _: times.append(time.perf_counter()),
    )
    return {"seconds": (times[-1] - times[0]) / (len(times) - 1)}


def sample(bench: Bench, engine: str = "transformers") -> Facts:
    """Four replies a prompt with the cloned policy. A step is all prompts, after a first round that is not timed."""
    options = {"arguments": ["--enforce-eager"]} if engine == "vllm" else {}
    slm = bench.slm.model_copy(update={"engine": engine, "engine_options": options})
    opened = open_engine(slm, bench.cache, bench.adapter(), bench.folder / "logs")
    opened.sample(bench.prompts[:2], [0, 1], k=4, temperature=0.7, batch_size=24)
    began = time.perf_counter()
    rows = opened.sample(bench.prompts, range(len(bench.prompts)), k=4, temperature=0.7, batch_size=24)
    seconds = time.perf_counter() - began
    written = sum(candidate.n_tokens for row in rows for candidate in row)
    return {"seconds": seconds, "tokens": written, "flop": 2 * bench.weights() * (written + sum(bench.lengths))}


def vllm(bench: Bench) -> Facts:
    """The same from a vLLM server, the adapter served; memory is this process's, not the server's."""
    return sample(bench, "vllm")


def score(bench: Bench) -> Facts:
    """Verifier scores of four actions a prompt. A step is all prompts."""
    trained = Verifier.load(bench.folder / "train_verifier", bench.slm, bench.cache)
    trained.score(bench.prompts[:2], [ACTIONS] * 2)
    began = time.perf_counter()
    trained.score(bench.prompts, [ACTIONS] * len(bench.prompts))
    seconds, tokens = time.perf_counter() - began, _with_actions(bench)
    return {"seconds": seconds, "tokens": tokens, "flop": 2 * bench.weights() * tokens}


PARTS = {part.__name__: part for part in (router, bc, dpo, verifier, sample, score, vllm)}


def measure(args: argparse.Namespace) -> Facts:
    """Run one part; what it took, and the card it ran on (empty: none)."""
    facts = make(args) if args.part == "make" else PARTS[args.part](Bench(args))
    if torch.cuda.is_available():
        return {**facts, "memory": torch.cuda.max_memory_allocated(), "card": torch.cuda.get_device_name()}
    return {**facts, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "card": ""}
