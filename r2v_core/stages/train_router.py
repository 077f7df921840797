"""Stage 7: train the router, calibrate its temperature and threshold, and say what it has learned.

Training uses logged rollouts. The thresholds of the router and of the rules that it is compared with are then tried out
on the validation tasks in closed loop (``training.router.calibrate: played``), all in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np

from r2v_core.agent.features import choose_features, feature_matrix
from r2v_core.agent.rules.table import RULES
from r2v_core.config.schema import AgentConfig, RouterConfig
from r2v_core.digest import digest_files
from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import fit_temperature
from r2v_core.models.router import SETTINGS_NAME, WEIGHTS_NAME, Router, RouterRow
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.router_calibration import FILE as VALIDATION_EPISODES
from r2v_core.stages.router_calibration import player, validation_tasks
from r2v_core.training.lagrangian import FailureModel, fit_failure_model, make_rollouts
from r2v_core.training.risk_bound import check_bound
from r2v_core.training.router import CHECKPOINT_NAME, LOG_NAME, Epoch, train_net
from r2v_core.training.router_diagnostics import diagnose, draw_levels, draw_reliability, draw_training, preview
from r2v_core.training.router_threshold import (
    Cut,
    Played,
    cheapest_threshold,
    descend,
    evaluate_threshold,
    threshold_for_share,
)

MIN_ROWS = 30
"""Steps that each split needs at least; below, batch norm and temperature mean nothing."""
VALIDATION_NAME = "validation.jsonl"


def read_rows(ctx: StageContext) -> tuple[list[RouterRow], list[RouterRow]]:
    """The steps to train on and those to calibrate on.

    Raises:
        R2VError: if a split has too few steps or only one kind of label; names the keys to raise.
    """
    store = JsonlStore(ctx.inputs["features"].artifact("features"), RouterRow)
    rows = list(store)
    if store.problems:
        raise R2VError(f"{store.problems[0]}; materialise 'router_features' again")
    parts = {split: [row for row in rows if row.split == split] for split in ("router", "validation")}
    for split, part in parts.items():
        check_rows(split, part)
    return parts["router"], parts["validation"]


def check_rows(split: str, rows: Sequence[RouterRow]) -> None:
    """Refuse what can't be learned or calibrated from.

    Raises:
        R2VError: for fewer than 30 steps, or labels of one class.
    """
    keys = f"benchmark.splits.{split}, perturbations.seeds.{split} or router_features.episodes_per_task"
    if len(rows) < MIN_ROWS:
        raise R2VError(
            f"router: {len(rows)} labelled steps in the {split} split, at least {MIN_ROWS} needed; raise {keys}"
        )
    kinds = {row.label for row in rows}
    if kinds == {True}:
        raise R2VError(
            f"router: the small model fails at every one of {len(rows)} steps of the {split} split, so there is "
            f"nothing to tell apart; train it longer (training.bc.max_steps) or raise {keys}"
        )
    if kinds == {False}:
        raise R2VError(
            f"router: the small model fails at none of {len(rows)} steps of the {split} split, so nothing needs "
            f"routing; raise the perturbation probabilities or {keys}"
        )


Play = Callable[[str, float], Played]
"""(rule, share) → what came of playing the validation tasks with the rule at that share."""


def calibrate(
    router: Router, rows: Sequence[RouterRow], model: FailureModel, config: RouterConfig, play: Play | None = None
) -> Cut:
    """Set temperature, threshold and the other rules' thresholds, all from validation tasks.

    ``expected_cost`` is risk-neutral throughout: its threshold bounds the mean failure over all seeds (α = 1).

    Args:
        router: trained; receives temperature, threshold, ``rules``, ``shares`` and ``calibration``.
        rows: logged validation steps.
        model: constants of the surrogate.
        config: what to calibrate for.
        play: where given, decides about thresholds; else the surrogate on ``rows`` does.
    """
    matrix = feature_matrix([row.features for row in rows], router.features)
    router.temperature = fit_temperature(router.logits(matrix), [row.label for row in rows])
    probability = router.probability(matrix)
    scores = {
        name: probability if rule.score is None else np.array([rule.score(row.features) for row in rows])
        for name, rule in RULES.items()
        if rule.threshold in ("router", "score")
    }
    router.shares = {name: [threshold_for_share(s, i / 100) for i in range(101)] for name, s in scores.items()}
    alpha = config.cvar_alpha if config.objective == "cvar" else 1.0
    bound = (make_rollouts(rows, router.features), model, alpha, config.cvar_epsilon)
    levels = {}
    cuts: dict[str, Cut] = {}
    for name, score in scores.items():
        if config.teacher_share is not None:
            cuts[name] = evaluate_threshold(score, threshold_for_share(score, config.teacher_share), *bound)
        elif play is None:
            cuts[name] = cheapest_threshold(score, *bound)
        else:
            chosen, levels[name] = descend(router.shares[name], partial(play, name), alpha, config.cvar_epsilon)
            cuts[name] = Cut(chosen.threshold, chosen.share, chosen.cvar, chosen.met)
    cut = cuts["r2v"]
    router.threshold = cut.threshold
    router.calibration = {
        "criterion": "cvar" if config.teacher_share is None else "teacher_share",
        "measured": "played" if levels else "logged",
        "alpha": alpha,
        "epsilon": config.cvar_epsilon,
        "met": cut.met,
        "cvar": cut.cvar,
        "share": cut.share,
        "failure_model": vars(model),
        "levels": {name: [asdict(level) for level in played] for name, played in levels.items()},
    }
    above = float(np.mean(scores["r2v"] > cut.threshold))
    router.rules = {name: {"rate": cut.share} for name, rule in RULES.items() if rule.threshold == "rate"}
    for name, rule in RULES.items():
        if rule.threshold == "score":
            own, equal = cuts[name], threshold_for_share(scores[name], above)
            router.rules[name] = {"threshold": own.threshold, "share": own.share, "cvar": own.cvar, "equal_rate": equal}
    return cut


def run(ctx: StageContext) -> StageResult:
    """Train (resumable), calibrate (resumable by episode), diagnose, draw."""
    config, agent = ctx.config.training.router, ctx.config.agent
    router_rows, validation_rows = read_rows(ctx)
    played = config.calibrate == "played" and config.teacher_share is None
    if played:
        check_bound(config, len(validation_tasks(ctx)))
    model = fit_failure_model(router_rows)
    router, curves = _train(ctx, router_rows, model, config, agent)
    cut = calibrate(router, validation_rows, model, config, player(ctx, router) if played else None)
    if not cut.met:
        ctx.report.log(
            f"warning: no threshold is shown to keep CVaR ≤ {config.cvar_epsilon} on validation (best {cut.cvar:.2f}); "
            f"the one used escalates {cut.share:.0%} of the steps"
        )
    router.save(ctx.run_dir)
    found = diagnose(router, validation_rows, ctx.seed)
    if found["collapsed"]:
        ctx.report.log("warning: the router says nearly the same probability everywhere; see diagnostics.json")
    write_atomic(ctx.run_dir / "diagnostics.json", json.dumps(found, indent=2) + "\n")
    _write_validation(router, validation_rows, ctx)
    pictures = ["training.png", "reliability.png"]
    draw_training(curves, config, ctx.run_dir / "training.png")
    draw_reliability(router, validation_rows, ctx.run_dir / "reliability.png")
    if played:
        draw_levels(router.calibration, ctx.run_dir / "calibration.png")
        pictures.append("calibration.png")
    write_atomic(ctx.run_dir / "preview.md", preview(found, router))
    (ctx.run_dir / CHECKPOINT_NAME).unlink(missing_ok=True)
    return StageResult(
        digest=digest_files([ctx.run_dir / WEIGHTS_NAME, ctx.run_dir / SETTINGS_NAME], ctx.run_dir),
        artifacts={
            "router": WEIGHTS_NAME,
            "settings": SETTINGS_NAME,
            "log": LOG_NAME,
            "diagnostics": "diagnostics.json",
            "validation": VALIDATION_NAME,
            **({"validation_episodes": VALIDATION_EPISODES} if played else {}),
            **{name: name for name in pictures},
            "preview": "preview.md",
        },
        counts={
            "rows_router": len(router_rows),
            "rows_validation": len(validation_rows),
            "threshold": router.threshold,
            "temperature": router.temperature,
            "teacher_share": cut.share,
            "validation_cvar": cut.cvar,
            "bound_met": float(cut.met),
            "lambda": curves[-1].multiplier,
            **{key: float(found[key]) for key in ("auc", "ece", "brier", "probability_std", "collapsed")},
        },
    )


def _train(
    ctx: StageContext, rows: Sequence[RouterRow], model: FailureModel, config: RouterConfig, agent: AgentConfig
) -> tuple[Router, list[Epoch]]:
    names = choose_features(config.features)
    ctx.report.log(
        f"{len(rows)} steps, {sum(row.label for row in rows) / len(rows):.0%} failing; "
        f"measured teacher failure {model.teacher_failure:.1%}"
    )

    def tell(line: Epoch) -> None:
        ctx.report.progress(
            "epochs", line.epoch + 1, config.epochs, cost=line.cost, cvar=line.cvar, multiplier=line.multiplier
        )

    net, log = train_net(make_rollouts(rows, names), model, config, agent, ctx.seed, ctx.run_dir, tell)
    return Router(net=net, features=list(names), hidden=list(config.hidden)), log


def _write_validation(router: Router, rows: Sequence[RouterRow], ctx: StageContext) -> None:
    """What ``r2v calibrate`` and the report read: each validation step with its calibrated probability."""
    probability = router.probability(feature_matrix([row.features for row in rows], router.features))
    lines = [
        {"task_id": r.task_id, "episode_id": r.episode_id, "z": r.z, "step": r.step, "label": r.label}
        | {"probability": float(p)}
        for r, p in zip(rows, probability, strict=True)
    ]
    write_atomic(ctx.run_dir / VALIDATION_NAME, "".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    from r2v_core.stages.cli import run_module

    run_module("train_router")
