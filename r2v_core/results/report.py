"""One self-contained HTML page: question, setting, tables, figures, caveats, and a browser of all episodes.

It opens from a file, fetches nothing, and runs one script, its own: the page's policy allows that script by its
SHA-256 and forbids everything else. Text from environments and models is in the page only escaped (tables) or packed
(episodes), and the script puts it on the screen as text nodes alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from r2v_core.agent.rules.table import RULES
from r2v_core.errors import R2VError
from r2v_core.models.labels import LABELS, PROGRESS
from r2v_core.results.browser import pack_episodes
from r2v_core.results.bundles import Bundle
from r2v_core.results.frontier import PREFIXES
from r2v_core.results.manager import ResultsManager
from r2v_core.results.summary import METRIC_NOTES, TAIL_WARNING, TAILS, rule_title
from r2v_core.trajectory import Episode

_COLUMNS = (
    ("success_rate", "success", "{:.1%}"),
    ("worst_seed_sr", "worst seed", "{:.1%}"),
    ("cvar_failure", "CVaR failure", "{:.1%}"),
    ("bottom_10_sr", "bottom 10 %", "{:.1%}"),
    ("robustness_gap", "clean − noisy", "{:+.1%}"),
    ("llm_call_rate", "teacher calls", "{:.1%}"),
    ("avg_cost", "cost, units", "{:.1f}"),
    ("safety_failure_rate", "unsafe", "{:.1%}"),
    ("ece", "ECE", "{:.3f}"),
    ("ece_debiased", "ECE, debiased", "{:+.3f}"),
    ("brier", "Brier", "{:.3f}"),
    ("tokens_slm_in", "small model reads", "{:,.0f}"),
    ("tokens_slm_out", "writes", "{:,.0f}"),
    ("tokens_verifier", "verifier reads", "{:,.0f}"),
    ("tokens_teacher_in", "teacher reads", "{:,.0f}"),
    ("tokens_teacher_out", "writes", "{:,.0f}"),
    ("avg_latency", "seconds", "{:.2f}"),
)
"""Metric, heading, format."""

SCRIPTS = ("dom", "data", "diff", "filters", "list", "step", "episode", "address", "theme", "keys", "main")
"""The page's script files, in order; joined, they share one scope."""

CAPTIONS = {
    "frontier": "Share of episodes solved against cost per episode, with intervals both ways; lines "
    "join the thresholds that were swept.",
    "cost_ratios": "Areas under success over cost, and r2v’s leads with intervals, if a teacher step cost another "
    "multiple of a small-model step; thresholds as calibrated at the run’s own (dotted). No tests, no verdicts.",
    "success_per_seed": "Success under each perturbation seed; the bar marks the mean of the worst seeds (1 − CVaR).",
    "success_by_perturbation": "Success in the episodes that each perturbation family struck, with intervals.",
    "reliability": "How often the small model's action failed against the risk that the router predicted.",
    "escalations": "Share of steps that the teacher played, by position in the episode.",
    "ablation_deltas": "What each variant loses or gains against the full method, with intervals.",
}


def figure_caption(name: str) -> str:
    """What a figure shows; ``name`` as in :func:`r2v_core.results.figures.save_figures`."""
    for stem, caption in CAPTIONS.items():
        if name.startswith(stem):
            condition = name[len(stem) + 1 :]
            return f"{caption} Condition: {condition}." if condition else caption
    return name.replace("_", " ")


def render_report(
    results: ResultsManager, figures: Path, episodes: Iterable[Episode], rules: Mapping[str, str] | None = None
) -> str:
    """The page as text.

    Args:
        results: where the numbers come from.
        figures: folder of the SVG files to show.
        episodes: the traces that the results were made from, in any order.
        rules: method → how it decides, where the trace has no threshold that says so.

    Raises:
        R2VError: if the results can't be read, the folder holds no figure, or results and episodes don't match.
    """
    drawings = sorted(figures.glob("*.svg"), key=_figure_rank)
    if not drawings:
        raise R2VError(f"{figures}: no figures (*.svg) there; materialise result_tables again")
    summary = results.summary
    rows = results.all_frames.episodes
    # Autoescape: names of tasks, methods and models are text from elsewhere and never become markup.
    environment = Environment(
        loader=PackageLoader("r2v_core.results", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    setting = summary["setting"]
    script, style = page_script(), _part("page.css")
    return environment.get_template("report.html.j2").render(
        policy=_policy(script, style),
        script=Markup(script),
        style=Markup(style),
        facts=_facts(results, rules or {}),
        episodes=pack_episodes(rows, episodes),
        n_episodes=len(rows),
        title=f"R2V on {setting['benchmark']}: {setting.get('experiment', 'results')}",
        subtitle=f"Shown: {setting['rows_shown']} ({', '.join(map(str, setting['partition_seeds']))}).",
        question=summary["question"],
        answer=summary["answer"],
        setting=[*_setting(setting), ("intervals", setting["statistics"]["intervals"])],
        conditions=[_condition(name, summary["results"][name], setting) for name in sorted(summary["results"])[::-1]],
        comparisons=[_comparison(row) for row in summary["comparisons"]],
        ablations=[_comparison(row) | {"ablation": row["ablation"]} for row in summary["ablations"]],
        areas=[_area(row) for row in summary["frontier_areas"]],
        ratios=_ratios(summary["cost_ratios"]),
        risk_scores=[_risk_score(row) for row in summary["risk_scores"]],
        test=setting["statistics"]["test"],
        verdict_rule=setting["statistics"]["verdict"],
        figures=[{"source": _data_uri(path), "caption": figure_caption(path.stem)} for path in drawings],
        caveats=summary["caveats"],
    )


def _facts(results: ResultsManager, rules: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the episode browser says about each method: a note, what its risk score is, how it decides without one."""
    notes, scores = {}, {}
    for bundle in results.bundles:
        rule, _, share = bundle.method.partition("@")
        if bundle.ablation:
            notes[bundle.method] = f"r2v, variant of the ablation {bundle.ablation}"
            scores[bundle.method] = _score_title("r2v", bundle)
            continue
        note = rule_title(rule)
        notes[bundle.method] = (
            f"{note}; here at a threshold that {share} of the validation steps exceed" if share else note
        )
        if rule in RULES and RULES[rule].score_title:
            scores[bundle.method] = _score_title(rule, bundle)
    return {"methods": notes, "scores": scores, "rules": dict(rules)}


def _score_title(rule: str, bundle: Bundle) -> str:
    """What the rule's score is; the router's probability is of what its labels were."""
    label = bundle.setting.get("router_label", PROGRESS)
    if RULES[rule].threshold != "router" or label == PROGRESS:
        return RULES[rule].score_title
    scope = {"step": "", "so_far": ", highest so far", "start": ", at the first step"}[RULES[rule].scope]
    return f"{LABELS[label].meaning.capitalize()}{scope}"


def page_script() -> str:
    """The page's one script: the files of :data:`SCRIPTS`, joined."""
    return "\n".join(_part(f"{name}.js") for name in SCRIPTS)


def _part(name: str) -> str:
    return files("r2v_core.results").joinpath("page", name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """The page's Content-Security-Policy: its own script and style, images that are in the page, and nothing else.

    ``require-trusted-types-for`` makes browsers refuse to turn any text into markup or code, even by this script.
    """
    script_hash, style_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _figure_rank(path: Path) -> tuple[int, bool, str]:
    rank = next((i for i, stem in enumerate(CAPTIONS) if path.stem.startswith(stem)), len(CAPTIONS))
    return rank, path.stem.endswith("clean"), path.stem


def _data_uri(path: Path) -> str:
    """An SVG as an image source: browsers run no script inside images, and ids of two figures can't collide."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _setting(setting: dict[str, Any]) -> list[tuple[str, str]]:
    said_elsewhere = ("statistics", "per_method_and_condition", "rows_shown")
    return [(name.replace("_", " "), _flat(value)) for name, value in setting.items() if name not in said_elsewhere]


def _flat(value: Any) -> str:
    """A configuration value on one line: semicolons between groups, commas within."""
    if isinstance(value, dict):
        parts, groups = [f"{key}: {_flat(inner)}" for key, inner in value.items()], list(value.values())
    elif isinstance(value, list):
        parts, groups = [_flat(inner) for inner in value], value
    else:
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    return ("; " if any(isinstance(inner, dict | list) for inner in groups) else ", ").join(parts)


def _condition(name: str, rows: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    counts = setting["per_method_and_condition"][name]
    columns = [column for column in _COLUMNS if any(metrics.get(column[0]) for metrics in rows.values())]
    unit = "perturbation seed" if name != "clean" else "replicate"
    return {
        "name": name,
        "counts": f"{counts['n_episodes']} episodes a method: {counts['n_tasks']} tasks, {counts['n_z']} "
        f"{unit}{'s' * (counts['n_z'] != 1)}",
        "columns": [
            {"title": f"{title} †" if metric in TAILS else title, "note": METRIC_NOTES.get(metric, "")}
            for metric, title, _ in columns
        ],
        "warning": TAIL_WARNING if any(metric in TAILS for metric, _, _ in columns) else "",
        "rows": [
            {
                "method": method,
                "note": rule_title(method),
                "reference": method == "r2v",
                "cells": [_cell(metrics.get(metric), form) for metric, _, form in columns],
            }
            for method, metrics in rows.items()
        ],
    }


def _cell(entry: dict[str, Any] | None, form: str) -> dict[str, str]:
    if entry is None or entry["value"] is None:
        return {"value": "–", "interval": "", "spread": ""}
    low_high, spread = entry.get("interval"), entry.get("between_seed_sd")
    return {
        "value": form.format(entry["value"]),
        "interval": f"{form.format(low_high[0])} … {form.format(low_high[1])}" if low_high else "",
        "spread": "" if spread is None else f"± {form.replace('+', '').format(spread)}",
    }


def _area(row: dict[str, Any]) -> dict[str, str]:
    compared = row["difference"] is not None
    cells = {"rule": row["rule"], "condition": row["condition"]}
    for name, start in PREFIXES.items():
        known = row[name] is not None
        cells[name], cells[f"{name}_ci"] = (f"{row[name]:.3f}", row[f"{name}_ci"]) if known else ("–", "")
        gap = row[f"{start}difference"]
        cells[f"{start}difference"] = "–" if gap is None else f"{gap:+.3f}"
        cells[f"{start}difference_ci"] = row[f"{start}difference_ci"] if compared and known else ""
        cells[f"{start}verdict"] = row[f"{start}verdict"] if compared and known else ""
    return cells


def _ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The areas at other prices of a teacher step: a column a ratio, a row a rule and condition."""
    columns = sorted({row["ratio"] for row in rows})
    cells: dict[tuple[str, str], dict[float, dict[str, str]]] = {}
    for row in rows:
        gap = row["difference"]
        cells.setdefault((row["rule"], row["condition"]), {})[row["ratio"]] = {
            "area": f"{row['cost_area']:.3f}",
            "difference": "" if gap is None else f"{gap:+.3f} {row['difference_ci']}",
        }
    found = [
        {"rule": rule, "condition": condition, "cells": [by_ratio.get(ratio) for ratio in columns]}
        for (rule, condition), by_ratio in cells.items()
    ]
    return {"columns": [f"1 : {ratio:g}" for ratio in columns], "rows": found}


def _risk_score(row: dict[str, Any]) -> dict[str, Any]:
    gap = row["difference"]
    shown = {"auc": f"{row['auc']:.3f}", "difference": "–" if gap is None else f"{gap:+.3f}"}
    return row | shown | {"difference_ci": row["difference_ci"] or ""}


def _comparison(row: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "difference": f"{row['difference']:+.1%}",
        "cost_difference": f"{row['cost_difference']:+.1f}",
        "p_sign_flip_holm": f"{row['p_sign_flip_holm']:.2g}",
        "won": _episodes_link(row, f"+{row['baseline']}"),
        "lost": _episodes_link(row, f"-{row['baseline']}"),
    }


def _episodes_link(row: dict[str, Any], against: str) -> str:
    """The episodes behind a count, in the browser further down the page."""
    wanted = {"method": row["method"], "condition": row["condition"], "against": against, "beside": row["baseline"]}
    return f"#episodes?{urlencode(wanted)}"
