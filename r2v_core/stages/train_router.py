"""Stage 7: choose and train the router's scorer, calibrate its threshold, and say what it has learned.

Scorers are compared by cross-fitting on logged rollouts of the router split, which also calibrates their probabilities.
The thresholds of the router and of the rules that it is compared with are then tried
out on the validation tasks in closed loop (``training.router.calibrate: played``), all in the same way.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("train_router")

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r2v_core.agent.features import feature_matrix
from r2v_core.agent.rules.base import RoutingRule, in_scope
from r2v_core.agent.rules.scored import own_scores
from r2v_core.agent.rules.table import RULES, calibrated_rules
from r2v_core.config.schema import RouterConfig
from r2v_core.digest import digest_files
from r2v_core.evaluation.certificates import Guarantee
from r2v_core.models.labels import BENEFIT, LABELS
from r2v_core.models.router import SETTINGS_NAME, WEIGHTS_NAME, Router, RouterRow, label_name
from r2v_core.runs import processes
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.router_calibration import FILE as VALIDATION_EPISODES
from r2v_core.stages.router_calibration import player, validation_tasks
from r2v_core.stages.router_rows import feature_names, read_rows
from r2v_core.training.guarantee import guarantee_of, shortfall
from r2v_core.training.lagrangian import FailureModel, fit_failure_model, make_rollouts
from r2v_core.training.router import CHECKPOINT_NAME, LOG_NAME, Epoch, read_log
from r2v_core.training.router_diagnostics import (
    diagnose,
    draw_levels,
    draw_reliability,
    draw_training,
    preview,
    statement,
)
from r2v_core.training.router_threshold import (
    Choice,
    Played,
    ThresholdResult,
    cheapest_threshold,
    descend,
    evaluate_threshold,
    threshold_for_share,
)
from r2v_core.training.scorers import Fitting, compare, train_scorers

VALIDATION_NAME = "validation.jsonl"
COUNTED = ("auc", "ece", "ece_debiased", "brier", "probability_std", "collapsed")
"""Of the diagnostics, those that stand among the run's counts."""


Play = Callable[[str, float], Played]
"""(rule, share) → what came of playing the validation tasks with the rule at that share."""


def calibrate(
    router: Router,
    router_rows: Sequence[RouterRow],
    rows: Sequence[RouterRow],
    model: FailureModel,
    config: RouterConfig,
    guarantee: Guarantee,
    play: Play | None = None,
) -> ThresholdResult:
    """Set the router's threshold and those of the rules that it is compared with.

    The thresholds that are tried come from the router split, so that the validation templates decide about them
    alone.

    Args:
        router: trained; receives threshold, ``rules``, ``shares`` and ``calibration``.
        router_rows: logged steps of the router split.
        rows: logged validation steps.
        model: constants of the surrogate.
        config: what to calibrate for.
        guarantee: what played thresholds are certified for.
        play: where given, decides about thresholds; else the surrogate on ``rows`` does.
    """
    wanted = [name for name in calibrated_rules(config.baselines) if _can_score(RULES[name], rows[0].features)]
    scoring = [RULES[name] for name in wanted if RULES[name].threshold in ("router", "score")]
    scores = {rule.name: deciding_scores(rule, router, rows) for rule in scoring}
    router.shares = {
        rule.name: [threshold_for_share(own, i / 100) for i in range(101)]
        for rule in scoring
        for own in [deciding_scores(rule, router, router_rows)]
    }
    alpha = config.cvar_alpha if config.objective == "cvar" else 1.0
    bound = (make_rollouts(rows, router.features), model, alpha, config.cvar_epsilon)
    choices: dict[str, Choice] = {}
    cuts: dict[str, ThresholdResult] = {}
    for name, score in scores.items():
        if config.teacher_share is not None:
            cuts[name] = evaluate_threshold(score, threshold_for_share(score, config.teacher_share), *bound)
        elif play is None:
            cuts[name] = cheapest_threshold(score, *bound)
        else:
            choices[name] = descend(router.shares[name], partial(play, name), guarantee, config.cvar_alpha)
            level = choices[name].level
            cuts[name] = ThresholdResult(level.threshold, level.share, level.risk, level.certified)
    cut = cuts["r2v"]
    router.threshold = cut.threshold
    router.calibration = {
        "criterion": "risk" if config.teacher_share is None else "teacher_share",
        "measured": "played" if choices else "logged",
        "alpha": alpha,
        "epsilon": config.cvar_epsilon,
        "met": cut.met,
        "risk": cut.risk,
        "share": cut.share,
        "failure_model": vars(model),
        "certificates": {name: certificate(guarantee, choice) for name, choice in choices.items()},
        "levels": {name: [asdict(level) for level in choice.levels] for name, choice in choices.items()},
    }
    router.calibration["statement"] = statement(router.calibration)
    router.rules = {name: {"rate": cut.share} for name in wanted if RULES[name].threshold == "rate"}
    router.rules |= {
        name: {"threshold": found.threshold, "share": found.share, "risk": found.risk}
        for name, found in cuts.items()
        if name != "r2v"
    }
    return cut


def _can_score(rule: RoutingRule, features: Mapping[str, float]) -> bool:
    """Whether steps that were logged by an older version have what a rule's score needs."""
    try:
        return rule.score is None or rule.score(features) is not None
    except KeyError:
        return False


def deciding_scores(rule: RoutingRule, router: Router, rows: Sequence[RouterRow]) -> NDArray[np.float64]:
    """The score that decides at each logged step, shape (n,): its own, or what the steps of its episode make of it."""
    own = own_scores(rule, router, [row.features for row in rows])
    episodes: dict[tuple[int | None, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        episodes[row.z, row.episode_id].append(i)
    for steps in episodes.values():
        own[steps] = in_scope(own[steps], rule.scope)
    return own


def certificate(guarantee: Guarantee, choice: Choice) -> dict[str, Any]:
    """What the calibration of one rule proves, as router.json, asset page and report state it."""
    return {
        "certified": choice.level.certified,
        "cvar_certified": choice.level.cvar_certified,
        **asdict(guarantee),
        "promise": guarantee.sentence(),
        "unit": "template",
        "n": choice.n,
        "templates_needed": choice.templates_needed,
        "observed": choice.level.risk,
        "p_value": choice.level.p_value,
    }


def run(ctx: StageContext) -> StageResult:
    """Train (resumable), calibrate (resumable by episode), diagnose, draw.

    Of several processes the main one trains, all of them play thresholds, and each draws the same conclusions.
    """
    config = ctx.config.training.router
    router_rows, validation_rows = read_rows(ctx.inputs["features"].artifact("features"))
    played = config.calibrate == "played" and config.teacher_share is None
    guarantee = guarantee_of(config, ctx.spec.provider)
    templates = len({task.template_id for task in validation_tasks(ctx)}) if played else 0
    if played and (why := shortfall(config, ctx.spec.provider, templates)):
        ctx.report.log(f"warning: {why}")
    model = fit_failure_model(router_rows)
    router = processes.from_main(lambda: _train(ctx, router_rows, model))
    play = player(ctx, router) if played else None
    cut = calibrate(router, router_rows, validation_rows, model, config, guarantee, play)
    processes.exit_workers()
    curves = read_log(ctx.run_dir)
    ctx.report.log(router.calibration["statement"])
    router.save(ctx.run_dir)
    found = diagnose(router, validation_rows, ctx.seed)
    if found["collapsed"]:
        ctx.report.log("warning: the router gives nearly the same probability everywhere; see diagnostics.json")
    write_atomic(ctx.run_dir / "diagnostics.json", json.dumps(found, indent=2) + "\n")
    _write_validation(router, validation_rows, ctx)
    pictures = ["training.png", "reliability.png"]
    draw_training(curves, config, ctx.run_dir / "training.png")
    draw_reliability(router, validation_rows, ctx.run_dir / "reliability.png")
    if played:
        draw_levels(router.calibration, ctx.run_dir / "calibration.png")
        pictures.append("calibration.png")
    write_atomic(ctx.run_dir / "preview.md", preview(found, router))
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
            "slope": router.scorer.slope,
            "teacher_share": cut.share,
            "validation_risk": cut.risk,
            **({"certified": float(cut.met), "certified_templates": templates} if played else {}),
            "lambda": curves[-1].multiplier,
            **{key: float(found[key]) for key in COUNTED},
        },
        scratch=(CHECKPOINT_NAME,),
    )


def _train(ctx: StageContext, rows: Sequence[RouterRow], model: FailureModel) -> Router:
    config = ctx.config.training.router
    names = feature_names(config, rows[0], ctx.report.log)
    name = label_name(rows)
    mean = sum(row.label for row in rows) / len(rows)
    teacher = "" if name == BENEFIT else f"; measured teacher failure {model.teacher_failure:.1%}"
    ctx.report.log(f"{len(rows)} steps, {LABELS[name].share(mean)}{teacher}")

    def tell(line: Epoch) -> None:
        ctx.report.progress(
            "epochs", line.epoch + 1, config.epochs, cost=line.cost, cvar=line.cvar, multiplier=line.multiplier
        )

    fitting = Fitting(names, config, ctx.config.agent, ctx.seed, ctx.run_dir, tell)
    compared = compare(rows, fitting, model)
    for one in compared:
        ctx.report.log(f"{one.scorer}: cross-fitted log loss {one.log_loss:.3f}, AUC {one.auc:.3f}")
    scorers = train_scorers(rows, compared, fitting)
    return Router(scorers, list(names), compared[0].scorer, label=name, comparison=[asdict(one) for one in compared])


def _write_validation(router: Router, rows: Sequence[RouterRow], ctx: StageContext) -> None:
    """What ``r2v calibrate`` and the report read: each validation step with its calibrated probability."""
    probability = router.probability(feature_matrix([row.features for row in rows], router.features))
    lines = [
        {"task_id": r.task_id, "episode_id": r.episode_id, "z": r.z, "step": r.step, "label": r.label}
        | {"probability": float(p)}
        for r, p in zip(rows, probability, strict=True)
    ]
    write_atomic(ctx.run_dir / VALIDATION_NAME, "".join(json.dumps(line) + "\n" for line in lines))
