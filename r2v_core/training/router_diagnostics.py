"""What a trained router has learned, on validation steps: numbers, two pictures, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

from r2v_core.agent.features import feature_matrix
from r2v_core.agent.rules.scored import R2V, entropy, own_scores
from r2v_core.agent.rules.table import RULES
from r2v_core.config.schema import RouterConfig
from r2v_core.digest import rng
from r2v_core.evaluation.calibration import auc, brier_score, expected_calibration_error, reliability_table
from r2v_core.evaluation.discrimination import auc_estimates
from r2v_core.evaluation.scores import debiased_calibration_error
from r2v_core.models.labels import LABELS
from r2v_core.models.router import Router, RouterRow
from r2v_core.training.router import Epoch
from r2v_core.training.router_threshold import threshold_for_share

COLLAPSED_BELOW = 0.02
"""A standard deviation of the probabilities below this means the same answer everywhere."""
RISKS = {
    "failure": "share of failed episodes",
    "excess": "failures beyond the teacher's",
    "cvar": "bound on the CVaR of failure",
}
"""Risk → how axes and tables name it."""
REPEATS = 10
"""Permutations averaged per feature."""


def diagnose(router: Router, rows: Sequence[RouterRow], seed: int) -> dict[str, Any]:
    """Discrimination and calibration against the router's label, and signs of the known failures.

    Those are: constant, or the entropy rule in disguise.

    ``auc_intervals`` and ``auc_leads`` (r2v's AUC minus a rule's, with its interval): 95 %, whole templates resampled.
    ``permutation_importance``: AUC lost when one feature is shuffled among the steps (Breiman 2001), mean of ten.
    ``entropy_rule_agreement``: share of steps decided as the entropy rule decides them at an equal call rate.
    ``spearman_entropy`` is None where entropy or probability is constant.
    """
    steps = [row.features for row in rows]
    x = feature_matrix(steps, router.features)
    label = np.array([row.label for row in rows], dtype=float)
    before, after = expit(router.logits(x)), router.probability(x)
    uncertainty = np.array([entropy(features) for features in steps])
    varies = np.ptp(uncertainty) > 0 and np.ptp(after) > 0
    escalate = after > router.threshold
    same = escalate == (uncertainty > threshold_for_share(uncertainty, float(escalate.mean())))
    single = [RULES[name] for name in router.shares if RULES[name].scope == "step"]
    templates = [row.template_id for row in rows]
    scores = {R2V.name: after} | {rule.name: own_scores(rule, router, steps) for rule in single}
    aucs = auc_estimates(scores, label, templates, R2V.name)
    mine = aucs[R2V.name][0].value
    return {
        "n": len(rows),
        "label": router.label,
        "positive_share": float(label.mean()),
        "auc": mine,
        "auc_of_rules": {name: found.value for name, (found, _) in aucs.items()},
        "auc_intervals": {name: _known(found.low, found.high) for name, (found, _) in aucs.items()},
        "auc_leads": {
            name: [lead.value, *_known(lead.low, lead.high)] for name, (_, lead) in aucs.items() if lead is not None
        },
        "ece_debiased": debiased_calibration_error(after, label, templates),
        "ece_before": expected_calibration_error(before, label),
        "ece": expected_calibration_error(after, label),
        "brier_before": brier_score(before, label),
        "brier": brier_score(after, label),
        "scorer": router.chosen,
        "slope": router.scorer.slope,
        "level": router.scorer.level,
        "threshold": router.threshold,
        "teacher_share": float(escalate.mean()),
        "probability_std": float(after.std()),
        "collapsed": bool(after.std() < COLLAPSED_BELOW),
        "spearman_entropy": float(spearmanr(after, uncertainty).statistic) if varies else None,
        "entropy_rule_agreement": float(same.mean()),
        "permutation_importance": {
            name: _importance(router, x, label, mine, column, seed) for column, name in enumerate(router.features)
        },
    }


def _known(low: float, high: float) -> list[float]:
    """An interval; empty where one template is too few for one."""
    return [] if np.isnan(low) else [low, high]


def _importance(router: Router, x: np.ndarray, label: np.ndarray, whole: float, column: int, seed: int) -> float:
    random = rng(seed, "permutation", router.features[column])
    drops = []
    for _ in range(REPEATS):
        shuffled = x.copy()
        shuffled[:, column] = random.permutation(shuffled[:, column])
        drops.append(whole - auc(router.probability(shuffled), label))
    return float(np.mean(drops))


def draw_training(log: Sequence[Epoch], config: RouterConfig, path: Path) -> None:
    """Cost, risk and Brier score, and below them the multiplier, over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    epochs = [line.epoch + 1 for line in log]
    tail = f"CVaR$_{{{config.cvar_alpha:g}}}$ of failure (surrogate)"
    curves = (("cvar", tail, "#D55E00", "-"), ("cost", "cost, teacher steps", "#0072B2", "--"))
    for name, text, colour, style in (*curves, ("brier", "Brier score", "#009E73", "-.")):
        top.plot(epochs, [getattr(line, name) for line in log], label=text, color=colour, linestyle=style)
    top.axhline(
        config.cvar_epsilon, color="0.4", linewidth=1, linestyle=":", label=f"bound ε = {config.cvar_epsilon:g}"
    )
    top.set_ylabel("value on the training steps")
    top.set_ylim(bottom=0)
    top.legend(frameon=False, fontsize=9)
    bottom.plot(epochs, [line.multiplier for line in log], color="#CC79A7")
    bottom.set_ylabel("multiplier λ")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("epoch")
    figure.savefig(path, dpi=150)


def draw_levels(calibration: Mapping[str, Any], path: Path) -> None:
    """Risk against teacher calls of every threshold played on the validation tasks, and the bound; certified: full."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for rule, levels in calibration["levels"].items():
        record = RULES[rule]
        shares, risks = ([level[key] for level in levels] for key in ("share", "risk"))
        percent, style = [100 * share for share in shares], f"{record.marker}{record.line}"
        axis.plot(percent, risks, style, color=record.colour, label=rule, markerfacecolor="none")
        certified = [i for i, level in enumerate(levels) if level["certified"]]
        axis.plot([percent[i] for i in certified], [risks[i] for i in certified], record.marker, color=record.colour)
    axis.axhline(calibration["epsilon"], color="0.4", linewidth=1, label=f"bound ε = {calibration['epsilon']:g}")
    axis.set_xlabel("steps that the teacher played, %")
    axis.set_ylabel(f"{RISKS[calibration['certificates']['r2v']['risk']]} (full: certified)")
    axis.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def draw_reliability(router: Router, rows: Sequence[RouterRow], path: Path) -> None:
    """Mean label against predicted one before and after calibration; below, where the predictions lie."""
    from matplotlib.figure import Figure

    x = feature_matrix([row.features for row in rows], router.features)
    label = [row.label for row in rows]
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    series = (("before", expit(router.logits(x)), "#E69F00", "s--"), ("after", router.probability(x), "#0072B2", "o-"))
    for when, probability, colour, style in series:
        table = reliability_table(probability, label).dropna()
        ece = expected_calibration_error(probability, label)
        top.plot(
            table["probability"], table["observed"], style, color=colour, label=f"{when} calibration, ECE {ece:.3f}"
        )
    top.set_ylabel(LABELS[router.label].observed)
    top.legend(frameon=False, fontsize=9)
    bottom.hist(router.probability(x), bins=np.linspace(0, 1, 21).tolist(), color="#0072B2")
    bottom.axvline(router.threshold, color="0.2", linestyle=":", label="threshold")
    bottom.legend(frameon=False, fontsize=9)
    bottom.set_xlabel(LABELS[router.label].meaning)
    bottom.set_ylabel("steps")
    bottom.set_xlim(-0.02, 1.02)
    figure.savefig(path, dpi=150)


def preview(found: dict[str, Any], router: Router) -> str:
    """A page of Markdown: the numbers that decide whether to trust the router."""
    held, said = router.calibration, LABELS[router.label]
    spearman = "–" if found["spearman_entropy"] is None else f"{found['spearman_entropy']:.2f}"
    lines = [
        f"Every AUC, ECE and Brier score here is against the label '{router.label}': {said.meaning}.",
        "",
        f"Validation: {found['n']} steps, {said.share(found['positive_share'])}.",
        "",
        "| | before calibration | after |",
        "| --- | ---: | ---: |",
        f"| ECE | {found['ece_before']:.3f} | {found['ece']:.3f} |",
        f"| ECE, debiased | | {found['ece_debiased']:.3f} |",
        f"| Brier | {found['brier_before']:.3f} | {found['brier']:.3f} |",
        "",
        f"- scorer {router.chosen}: AUC {found['auc']:.3f} · slope {found['slope']:.2f}, level {found['level']:.2f} · "
        f"standard deviation of the probability "
        f"{found['probability_std']:.3f}" + (" (**collapsed**)" if found["collapsed"] else ""),
        f"- threshold {router.threshold:.3f} escalates {held['share']:.0%} of the steps; {held['statement']}",
        f"- against the entropy rule: Spearman {spearman}, {found['entropy_rule_agreement']:.0%} of decisions equal at "
        "an equal call rate",
        "",
        "Scorers on templates of the router split that they were not trained on (cross-fitted; the first is used):",
        "",
        "| scorer | log loss | Brier | AUC | area on the cost axis, surrogate |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {one['scorer']} | {one['log_loss']:.3f} | {one['brier']:.3f} | {one['auc']:.3f} | {one['area']:.3f} |"
            for one in router.comparison
        ),
        "",
        "| rule | AUC of its score on validation steps | 95 % interval | r2v's lead | 95 % interval |",
        "| --- | ---: | --- | ---: | --- |",
        *(_auc_row(name, found) for name in found["auc_of_rules"]),
        "",
        "| feature | AUC lost when shuffled |",
        "| --- | ---: |",
    ]
    ranked = sorted(found["permutation_importance"].items(), key=lambda item: -item[1])
    lines += [f"| {name} | {drop:.3f} |" for name, drop in ranked]
    return "\n".join(lines + _levels(held)) + "\n"


def _auc_row(name: str, found: Mapping[str, Any]) -> str:
    row = f"| {name} | {found['auc_of_rules'][name]:.3f} | {_interval(found['auc_intervals'][name], '.3f')} |"
    if name not in found["auc_leads"]:
        return f"{row} | |"
    lead, *ends = found["auc_leads"][name]
    return f"{row} {lead:+.3f} | {_interval(ends, '+.3f')} |"


def _interval(ends: Sequence[float], form: str) -> str:
    return "[" + ", ".join(format(end, form) for end in ends) + "]" if ends else ""


def statement(calibration: Mapping[str, Any]) -> str:
    """What the threshold is worth, in one sentence."""
    if not calibration["certificates"]:
        surrogate = f"CVaR at α = {calibration['alpha']:g} of failure is {calibration['risk']:.2f} in the surrogate"
        return f"uncertified (not played): {surrogate}, ε = {calibration['epsilon']:g}"
    held = calibration["certificates"]["r2v"]
    seen = f"{RISKS[held['risk']]} {held['observed']:.3f} on {held['n']} templates"
    if held["certified"]:
        tail = "; CVaR is certified too" if held["cvar_certified"] and held["risk"] != "cvar" else ""
        return f"certified: {held['promise']} ({seen}, p = {held['p_value']:.3g}{tail})"
    needed = held["templates_needed"]
    why = f"about {needed} templates like these would certify it" if needed else "too near the bound, or above it"
    return f"**uncertified**: not shown that {held['promise']} ({seen}; {why})"


def _levels(held: Mapping[str, Any]) -> list[str]:
    """The thresholds that were played, as a table; nothing where none was."""
    if not held["levels"]:
        return []
    lines = [
        "",
        "Validation templates played in closed loop, each in worlds of its own, from safe to cheap; the last certified "
        "threshold is taken, or, where none is, the last whose risk as seen is within the bound:",
        "",
        "| rule | threshold | teacher calls | success | risk | p | certified | CVaR certified |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for rule, levels in held["levels"].items():
        lines += [
            f"| {rule} | {level['threshold']:.3f} | {level['share']:.1%} | {level['success']:.1%} "
            f"| {level['risk']:.3f} | {level['p_value']:.3g} | {_yes(level['certified'])} "
            f"| {_yes(level['cvar_certified'])} |"
            for level in levels
        ]
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"
