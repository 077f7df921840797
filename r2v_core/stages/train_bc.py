"""Stage 3a: fine-tune the small model on teacher actions."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("train_bc")

from collections.abc import Mapping, Sequence
from typing import Any

from r2v_core.config.schema import BCConfig, SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.hub import load_tokenizer
from r2v_core.runs.fingerprint import BASE
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import is_main
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.training.adapters import ADAPTER, adapter_digest, save_untrained
from r2v_core.training.bc import Example, make_examples, train_bc
from r2v_core.training.checkpoints import CHECKPOINTS, LOG_NAME
from r2v_core.training.curves import draw_curves
from r2v_core.training.examples import Renderer, instructions_of, training_episodes
from r2v_core.training.run import training_run, untrained
from r2v_core.training.workers import wait_for_everyone
from r2v_core.trajectory import Episode

CURVE = "loss.png"


def run(ctx: StageContext) -> StageResult:
    """Train the BC adapter; resumable from its checkpoints. With ``max_steps: 0`` it changes nothing."""
    bc = ctx.config.training.bc
    if bc.max_steps == 0:
        if BASE in ctx.inputs:
            raise R2VError("training.bc.max_steps: 0 adds nothing to the run that is extended; give the further steps")
        return untrained(
            ctx,
            lambda folder: save_untrained(ctx.config.slm, ctx.config.training.lora, ctx.cache, folder, ctx.seed),
            "No behaviour cloning (`training.bc.max_steps: 0`): the small model as it comes.",
        )
    clean, perturbed = (training_episodes(ctx.inputs[role]) for role in ("trajectories", "perturbed"))
    return clone(ctx, clean, perturbed, ctx.config.slm, bc, "training.bc")


def clone(
    ctx: StageContext, clean: Sequence[Episode], perturbed: Sequence[Episode], slm: SLMConfig, bc: BCConfig, key: str
) -> StageResult:
    """Train an adapter of ``slm`` on the teacher's actions in these episodes; resumable from its checkpoints.

    Args:
        key: the config section that ``bc`` is, for messages.
    """
    training = training_run(ctx)
    renderer = Renderer(load_tokenizer(slm, ctx.cache), slm, instructions_of(ctx.partition.benchmark))
    examples = make_examples(clean, perturbed, renderer, bc, ctx.seed, key)
    cut = dict(sorted(renderer.cut.items()))  # states before they are thinned out
    ctx.report.log(
        f"{len(examples)} examples from {len(clean)} clean and {len(perturbed)} perturbed episodes; "
        f"{bc.max_steps} steps of {bc.batch_size * bc.grad_accumulation}"
    )
    log = train_bc(examples, renderer, slm, ctx.config.training.lora, bc, ctx.cache, training)
    counts = _counts(examples, log) | {f"cut_{part}": n for part, n in cut.items()} | training.counts
    if is_main():
        draw_curves(
            log,
            ctx.run_dir / CURVE,
            f"Behaviour cloning · {ctx.partition.key}",
            {"loss per action token (nats)": {"loss": "loss"}, "token accuracy": {"mean_token_accuracy": "accuracy"}},
        )
        write_atomic(ctx.run_dir / "preview.md", _preview(examples, counts))
    wait_for_everyone()  # the main process has saved what the digest is of
    return StageResult(
        digest=adapter_digest(ctx.run_dir / ADAPTER),
        artifacts={"adapter": ADAPTER, "training_log": LOG_NAME, "loss.png": CURVE, "preview": "preview.md"},
        counts=counts,
        scratch=(CHECKPOINTS,),
    )


def _counts(examples: Sequence[Example], log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        "examples": len(examples),
        "share_perturbed": sum(example.perturbed for example in examples) / len(examples),
        "distinct_actions": len({example.action for example in examples}),
        "steps": log[-1]["step"],
        "loss_first": log[0]["loss"],
        "loss_last": log[-1]["loss"],
        "token_accuracy_last": log[-1]["mean_token_accuracy"],
    }


def _preview(examples: Sequence[Example], counts: Mapping[str, float]) -> str:
    return (
        f"Loss per action token fell from {counts['loss_first']:.3f} to {counts['loss_last']:.3f} nats in "
        f"{counts['steps']:.0f} steps; {counts['token_accuracy_last']:.1%} of the last batch's action tokens are the "
        f"model's first choice.\n\n"
        "| examples | of these perturbed | distinct actions |\n| ---: | ---: | ---: |\n"
        f"| {counts['examples']:.0f} | {counts['share_perturbed']:.1%} | {counts['distinct_actions']:.0f} |\n\n"
        f"One example:\n\n```text\n{examples[0].prompt}▸{examples[0].action}\n```\n"
    )
