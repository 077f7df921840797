"""Stage 3b: train the two-headed step verifier."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("train_verifier")

from collections.abc import Mapping, Sequence
from typing import Any

from r2v_core.agent.continuations import ON_POLICY
from r2v_core.digest import digest_file, digest_of
from r2v_core.errors import R2VError
from r2v_core.models.hub import load_tokenizer
from r2v_core.models.verifier import HEADS, INFO
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import is_main
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.training.adapters import ADAPTER, adapter_digest
from r2v_core.training.checkpoints import CHECKPOINTS, LOG_NAME
from r2v_core.training.curves import draw_curves
from r2v_core.training.examples import Renderer, instructions_of, training_episodes
from r2v_core.training.run import training_run
from r2v_core.training.verifier import train_verifier
from r2v_core.training.verifier_labels import (
    LabelledState,
    class_episodes,
    label_states,
    shares,
    split_by_template,
    with_share,
)
from r2v_core.training.workers import wait_for_everyone

CURVE = "loss.png"


def run(ctx: StageContext) -> StageResult:
    """Train the verifier; resumable from its checkpoints."""
    config = ctx.config.training
    run_ = training_run(ctx)
    renderer = Renderer(
        load_tokenizer(ctx.config.slm, ctx.cache), ctx.config.slm, instructions_of(ctx.partition.benchmark)
    )
    roles = [role for role in ("trajectories", "perturbed", "rollouts") if role in ctx.inputs]
    episodes = [episode for role in roles for episode in training_episodes(ctx.inputs[role])]
    found = label_states(episodes, renderer)
    if not found:
        raise R2VError("no state of the training episodes has a label; raise collection.alternatives and collect again")
    training, held_out = split_by_template(found, config.verifier.validation_share, ctx.seed)
    if not config.verifier.on_policy.learn:
        training = [state for state in training if not state.on_policy]
    if config.verifier.on_policy.share is not None:
        training = with_share(training, config.verifier.on_policy.share, ctx.seed)
    ctx.report.log(f"{len(training)} states to train on, {len(held_out)} held out by template")
    log, metrics = train_verifier(
        training, held_out, renderer, ctx.config.slm, config.lora, config.verifier, ctx.cache, run_
    )
    counts = {**_counts(found, log), **metrics, **run_.counts}
    if is_main():
        draw_curves(
            log,
            ctx.run_dir / CURVE,
            f"Verifier · {ctx.partition.key}",
            {
                "weighted loss": {"loss": "loss"},
                "balanced BCE": {f"loss_{head}": head for head in HEADS},
            },
        )
        write_atomic(ctx.run_dir / "preview.md", _preview(counts))
    wait_for_everyone()  # the main process has saved what the digest is of
    return StageResult(
        digest=digest_of([adapter_digest(ctx.run_dir / ADAPTER), digest_file(ctx.run_dir / INFO)]),
        artifacts={
            "adapter": ADAPTER,
            "info": INFO,
            "training_log": LOG_NAME,
            "loss.png": CURVE,
            "preview": "preview.md",
        },
        counts=counts,
        scratch=(CHECKPOINTS,),
    )


def _counts(found: Sequence[LabelledState], log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    counts: dict[str, float] = {"states": len(found), "steps": log[-1]["step"]}
    for head, (n, share) in shares(found).items():
        counts |= {f"labels_{head}": n, f"label_share_{head}": share}
    for head, (negative, positive) in class_episodes(found).items():
        counts |= {f"episodes_{head}_negative": negative, f"episodes_{head}_positive": positive}
    if own := sum(state.on_policy for state in found):
        counts[f"states_{ON_POLICY}"] = own
    return {**counts, "loss_first": log[0]["loss"], "loss_last": log[-1]["loss"]}


def _preview(counts: Mapping[str, float]) -> str:
    lines = [
        f"{counts['states']:.0f} states; {counts['held_out_states']:.0f} of them held out by template. Classes weigh "
        "the same in training, so scores are probabilities under equally frequent classes.",
        "",
        "| head | labels | positive | episodes with a negative / positive | held out | AUC | Brier |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [_row(head, counts, "") for head in HEADS]
    if (own := counts.get(f"states_{ON_POLICY}", 0)) and f"held_out_states_{ON_POLICY}" in counts:
        held = counts[f"held_out_states_{ON_POLICY}"]
        lines += [_row(head, counts, f"_{ON_POLICY}") for head in HEADS]
        lines += [
            "",
            f"{own:.0f} states are the small model's own, {held:.0f} of them held out by template (on policy).",
        ]
    return "\n".join(lines) + "\n"


def _row(head: str, counts: Mapping[str, float], suffix: str) -> str:
    """A line of the table: a head on the states of the teacher's collection, or on the small model's own."""
    held, auc, brier = (
        f"{counts[key]:.{digits}f}" if (key := f"{name}_{head}{suffix}") in counts else "–"
        for name, digits in (("held_out", 0), ("auc", 3), ("brier", 3))
    )
    if suffix:
        return f"| {head}, on policy | | | | {held} | {auc} | {brier} |"
    classes = " / ".join(f"{counts[f'episodes_{head}_{label}']:.0f}" for label in ("negative", "positive"))
    return (
        f"| {head} | {counts[f'labels_{head}']:.0f} | {counts[f'label_share_{head}']:.1%} | {classes} "
        f"| {held} | {auc} | {brier} |"
    )
