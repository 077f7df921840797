"""Stage 5: preference-optimise the policy from the BC adapter, with the consistency term."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("train_dpo")

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from r2v_core.benchmarks.actions import headline
from r2v_core.errors import R2VError
from r2v_core.models.hub import load_tokenizer
from r2v_core.runs.fingerprint import BASE
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.processes import is_main
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.training.adapters import ADAPTER, adapter_digest
from r2v_core.training.checkpoints import CHECKPOINTS, LOG_NAME
from r2v_core.training.consistency import make_context_pairs
from r2v_core.training.curves import draw_curves
from r2v_core.training.dpo import train_dpo
from r2v_core.training.examples import Renderer, instructions_of, training_episodes
from r2v_core.training.preference_check import held_out_templates, split
from r2v_core.training.preferences import CandidateRow, Pair, make_pairs
from r2v_core.training.run import training_run, untrained
from r2v_core.training.workers import wait_for_everyone

CURVE = "loss.png"
ACCURACY, MARGIN = "rewards/accuracies", "rewards/margins"


def run(ctx: StageContext) -> StageResult:
    """Train the DPO adapter; resumable from its checkpoints. With ``max_steps: 0`` it is the BC adapter."""
    config = ctx.config.training
    if config.dpo.max_steps == 0:
        if BASE in ctx.inputs:
            raise R2VError("training.dpo.max_steps: 0 adds nothing to the run that is extended; give the further steps")
        adapter = ctx.inputs["policy"].artifact("adapter")
        return untrained(
            ctx,
            lambda folder: shutil.copytree(adapter, folder, dirs_exist_ok=True),
            "No preference optimisation (`training.dpo.max_steps: 0`): the BC policy.",
        )
    training = training_run(ctx)
    rows = list(JsonlStore(ctx.inputs["candidates"].artifact("candidates"), CandidateRow))
    perturbed = training_episodes(ctx.inputs["perturbed"])
    templates = {episode.task_id: episode.template_id for episode in perturbed}
    every = make_pairs(rows, ctx.config.candidates.rank_by, ctx.seed, templates)
    apart = held_out_templates(every, config.dpo.validation_share, ctx.seed)
    pairs, held_pairs = split(every, apart)
    renderer = Renderer(
        load_tokenizer(ctx.config.slm, ctx.cache), ctx.config.slm, instructions_of(ctx.partition.benchmark)
    )
    context_pairs, held_contexts = split(make_context_pairs(perturbed, renderer), apart)
    if not config.dpo.consistency_weight:
        context_pairs = []
    elif not context_pairs:
        ctx.report.log("no state looks different under two perturbations; training without the consistency term")
    ctx.report.log(
        f"{len(pairs)} preference pairs from {len(rows)} states, {len(context_pairs)} consistency pairs; "
        f"{len(held_pairs)} and {len(held_contexts)} of {len(apart)} templates held out"
    )
    log, measured = train_dpo(
        pairs,
        context_pairs,
        renderer,
        ctx.config.slm,
        ctx.inputs["policy"].artifact("adapter"),
        config.dpo,
        ctx.cache,
        training,
        (held_pairs, held_contexts),
    )
    counts = {"states": len(rows), "consistency_pairs": len(context_pairs), **_counts(pairs, log), **training.counts}
    counts |= measured
    if is_main():
        draw_curves(
            log,
            ctx.run_dir / CURVE,
            f"DPO · {ctx.partition.key}",
            {
                "DPO loss (nats)": {"loss_dpo": "DPO"},
                "Jensen-Shannon divergence (nats)": {"loss_consistency": "consistency"},
                "reward accuracy, margin": {ACCURACY: "accuracy", MARGIN: "margin"},
            },
        )
        write_atomic(ctx.run_dir / "preview.md", _preview(pairs, counts))
    wait_for_everyone()  # the main process has saved what the digest is of
    return StageResult(
        digest=adapter_digest(ctx.run_dir / ADAPTER),
        artifacts={"adapter": ADAPTER, "training_log": LOG_NAME, "loss.png": CURVE, "preview": "preview.md"},
        counts=counts,
        scratch=(CHECKPOINTS,),
    )


def _counts(pairs: Sequence[Pair], log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    last = log[-max(1, len(log) // 5) :]
    counts = {
        "pairs": len(pairs),
        "steps": log[-1]["step"],
        "loss_dpo_first": log[0]["loss_dpo"],
        "loss_dpo_last": _mean(last, "loss_dpo"),
        "reward_accuracy_first": log[0][ACCURACY],
        "reward_accuracy_last": _mean(last, ACCURACY),
        "reward_margin_last": _mean(last, MARGIN),
    }
    if "loss_consistency" in log[0]:
        counts["loss_consistency_first"] = log[0]["loss_consistency"]
        counts["loss_consistency_last"] = _mean(last, "loss_consistency")
    return counts


def _held_out(counts: Mapping[str, float]) -> list[str]:
    """What held-out templates say, as a table; nothing where none was held out."""
    lines: list[str] = []
    if "held_out_pairs" in counts:
        lines += [
            "",
            f"{counts['held_out_pairs']:.0f} pairs of {counts['held_out_templates']:.0f} templates held out: "
            f"p = {counts['held_out_p']:.2g} that accuracy is chance's (sign flips of whole templates).",
            "",
            "| held out | before | after |",
            "| --- | ---: | ---: |",
            f"| reward accuracy (chance: 0.5) | 0.500 | {counts['held_out_accuracy']:.3f} |",
            f"| reward margin | 0.000 | {counts['held_out_margin']:.3f} |",
            "| better action is the more probable | "
            f"{counts['held_out_ranking_before']:.3f} | {counts['held_out_ranking_after']:.3f} |",
        ]
    if "held_out_context_pairs" in counts:
        lines += [] if lines else ["", "| held out | before | after |", "| --- | ---: | ---: |"]
        before, after = counts["held_out_divergence_before"], counts["held_out_divergence_after"]
        lines.append(
            f"| consistency (JSD, {counts['held_out_context_pairs']:.0f} pairs) | {before:.4f} | {after:.4f} |"
        )
    return lines


def _mean(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(line[key] for line in lines) / len(lines)


def _preview(pairs: Sequence[Pair], counts: Mapping[str, float]) -> str:
    lines = [
        f"{counts['pairs']:.0f} pairs from {counts['states']:.0f} states, {counts['steps']:.0f} steps. At the first "
        "step the policy is its own reference, so its loss is ln 2 ≈ 0.693 and no reward differs.",
        "",
        "| | first step | last fifth |",
        "| --- | ---: | ---: |",
    ]
    rows = {"DPO loss": "loss_dpo", "reward accuracy": "reward_accuracy", "consistency (JSD)": "loss_consistency"}
    for label, key in rows.items():
        if f"{key}_first" in counts:
            lines.append(f"| {label} | {counts[f'{key}_first']:.3f} | {counts[f'{key}_last']:.3f} |")
    lines += _held_out(counts)
    lines += ["", "| chosen | rejected |", "| --- | --- |"]
    lines += [f"| `{headline(pair.chosen)}` | `{headline(pair.rejected)}` |" for pair in pairs[:8]]
    return "\n".join(lines) + "\n"
