"""Is a finished run what it claims to be? Pure functions from a run's files to a finding; no orchestrator needed."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import EvaluationConfig, SeedsConfig
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.design import planned_cells
from r2v_core.trajectory import Episode

MIN_TEACHER_SUCCESS = 0.9
"""A teacher that plays every step should win at least this share, else the data teaches failing."""
MIN_CLASS_SHARE = 0.05
"""Each label of the verifier's training data should make up at least this share."""
MIN_PROBABILITY_STD = 1e-3
"""Below this standard deviation on validation steps a router answers the same everywhere."""
MAX_ENTROPY_CORRELATION = 0.99
"""From this absolute rank correlation on a router is the entropy rule under another name."""
SHOWN = 5
"""Examples quoted in a message."""


@dataclass(frozen=True)
class Finding:
    """What a check found, in one sentence and in numbers."""

    passed: bool
    message: str
    facts: dict[str, float] = field(default_factory=dict)


def no_template_leakage(run: UpstreamRun) -> Finding:
    """No task template, and no task content, is in two splits of a task suite."""
    tasks = list(JsonlStore(run.artifact("tasks"), Task))
    leaks = {}
    for what in ("template_id", "content"):
        splits: dict[str, set[str]] = defaultdict(set)
        for task in tasks:
            splits[getattr(task, what)].add(task.split)
        leaks[what] = sorted(key for key, found in splits.items() if len(found) > 1)
    shared = leaks["template_id"] + leaks["content"]
    facts: dict[str, float] = {
        "tasks": len(tasks),
        "shared_templates": len(leaks["template_id"]),
        "equal_tasks": len(leaks["content"]),
    }
    if shared:
        return Finding(False, f"in more than one split: {', '.join(shared[:SHOWN])}", facts)
    return Finding(True, f"{len(tasks)} tasks, every template and content in one split only", facts)


def no_duplicate_trajectories(run: UpstreamRun) -> Finding:
    """No two episodes of one task have the same action sequence."""
    played = (episode for episode in _episodes(run) if episode.error is None)
    seen = Counter((episode.task_id, episode.action_hash) for episode in played)
    repeated = {task for (task, _), n in seen.items() if n > 1}
    extra = sum(n - 1 for n in seen.values())
    facts: dict[str, float] = {"episodes": seen.total(), "duplicates": extra}
    if extra:
        examples = ", ".join(sorted(repeated)[:SHOWN])
        message = f"{extra} of {seen.total()} episodes repeat another one's actions, e.g. on {examples}"
        return Finding(False, message, facts)
    return Finding(True, f"{seen.total()} episodes, all different", facts)


def teacher_succeeds(run: UpstreamRun) -> Finding:
    """Where the teacher plays from the start, it wins."""
    led = [episode for episode in _episodes(run) if all(step.actor == "teacher" for step in episode.steps)]
    if not led:
        return Finding(False, "the teacher played no episode from the start to the end")
    share = sum(episode.success for episode in led) / len(led)
    message = f"the teacher alone wins {share:.1%} of {len(led)} episodes ({MIN_TEACHER_SUCCESS:.0%} expected)"
    return Finding(share >= MIN_TEACHER_SUCCESS, message, {"episodes": len(led), "success_rate": share})


def verifier_labels_balanced(run: UpstreamRun) -> Finding:
    """Both classes of both heads occur often enough to be learnt."""
    shares = {head: run.manifest.counts.get(f"label_share_{head}") for head in ("step", "outcome")}
    missing = [head for head, share in shares.items() if share is None]
    if missing:
        return Finding(False, f"the run does not say the label share of: {', '.join(missing)}")
    found = {head: float(share) for head, share in shares.items() if share is not None}
    message = ", ".join(f"{head}: {share:.1%} positive" for head, share in found.items())
    passed = all(MIN_CLASS_SHARE <= share <= 1 - MIN_CLASS_SHARE for share in found.values())
    return Finding(passed, message, {f"share_{head}": share for head, share in found.items()})


def trained_on_train_split(run: UpstreamRun, data: Mapping[str, UpstreamRun], suite: UpstreamRun) -> Finding:
    """Nothing that training read comes from a template that the task suite holds out, whatever teacher or seed.

    Args:
        run: a run of ``train_bc`` or ``train_verifier``.
        data: role → the run of episodes it read; episodes outside the split ``train`` are not trained on.
        suite: the task suite of its partition.
    """
    held_out = {task.template_id for task in JsonlStore(suite.artifact("tasks"), Task) if task.split != "train"}
    learnt = [e for upstream in data.values() for e in _episodes(upstream) if e.metadata.get("split") == "train"]
    templates = {episode.template_id for episode in learnt}
    sources = {str(episode.metadata.get("run_id")) for episode in learnt}
    leaked = sorted(templates & held_out)
    facts: dict[str, float] = {"episodes": len(learnt), "templates": len(templates), "leaked": len(leaked)}
    if leaked or not learnt:
        what = f"templates that {suite.manifest.run_id} holds out: {', '.join(leaked[:SHOWN])}" if leaked else "no data"
        return Finding(False, f"{run.manifest.run_id} learnt from {what}", facts)
    return Finding(
        True, f"{len(templates)} templates of {len(sources)} runs, none of the {len(held_out)} that are held out", facts
    )


def router_not_degenerate(run: UpstreamRun) -> Finding:
    """The router is neither constant nor the entropy rule under another name."""
    found = json.loads(run.artifact("diagnostics").read_text(encoding="utf-8"))
    spread, agreement = float(found["probability_std"]), float(found["entropy_rule_agreement"])
    correlation = abs(float(found["spearman_entropy"] or 0.0))
    facts = {"probability_std": spread, "spearman_entropy": correlation, "entropy_rule_agreement": agreement}
    if spread <= MIN_PROBABILITY_STD:
        return Finding(False, f"constant: standard deviation {spread:.2g} over validation steps", facts)
    if correlation >= MAX_ENTROPY_CORRELATION or agreement == 1.0:
        how = f"rank correlation {correlation:.3f}, {agreement:.1%} equal decisions"
        return Finding(False, f"the entropy rule in disguise: {how}", facts)
    return Finding(
        True,
        f"standard deviation {spread:.3f}; decides {1 - agreement:.1%} of the steps unlike the entropy rule",
        facts,
    )


def traces_complete(run: UpstreamRun, suite: UpstreamRun) -> Finding:
    """Every episode of the recorded design is there once, with its whole trace, and none that is not in it.

    The design is what the run's manifest says (methods, seeds) and the test tasks of the suite that it read. An episode
    that ended in an error (``metadata["error"]``) is there, traced as far as it came, and counts as failed.

    Args:
        run: an evaluation.
        suite: the task suite it played.
    """
    config, noisy = run.manifest.config, run.manifest.stage == "evaluate_noisy"
    cells = planned_cells(
        "noisy" if noisy else "clean",
        [task for task in JsonlStore(suite.artifact("tasks"), Task) if task.split == "test"],
        EvaluationConfig.model_validate(config["evaluation"]),
        SeedsConfig.model_validate(config["perturbations"]["seeds"]),
        run.manifest.seed,
    )
    design = {(cell.task.task_id, cell.z, cell.replicate, cell.method) for cell in cells}
    episodes = _episodes(run)
    played = Counter((e.task_id, e.perturbation_seed, e.metadata["replicate"], e.metadata["method"]) for e in episodes)
    wrong = {
        "missing": sorted(map(str, design - played.keys())),
        "not in the design": sorted(map(str, played.keys() - design)),
        "played more than once": sorted(str(cell) for cell, n in played.items() if n > 1),
        "steps without their decision in": [e.episode_id for e in episodes if not _traced(e)],
        "ended in an error and counted as solved": [e.episode_id for e in episodes if e.error and e.success],
    }
    errors = sum(episode.error is not None for episode in episodes)
    facts: dict[str, float] = {"episodes": len(episodes), "expected": len(design), "errors": errors}
    found = [f"{len(which)} {what}: {', '.join(which[:SHOWN])}" for what, which in wrong.items() if which]
    if found or not design:
        return Finding(False, "; ".join(found) or "the design holds no episode", facts)
    ended = f", {errors} ended in an error and count as failed" if errors else ""
    return Finding(True, f"all {len(design)} episodes of the design, every step with its decision{ended}", facts)


def _traced(episode: Episode) -> bool:
    return (bool(episode.steps) or episode.error is not None) and all(
        step.index == i
        and step.decision is not None
        and step.decision.method == episode.metadata["method"]
        and (step.actor == "teacher" or step.decision.chosen is not None)
        for i, step in enumerate(episode.steps)
    )


def table_matches_traces(run: UpstreamRun, evaluations: Mapping[str, UpstreamRun]) -> Finding:
    """Success rates of the main table equal those counted from the step traces.

    Args:
        run: a run of ``result_tables``.
        evaluations: condition → the evaluation run of the same seed.
    """
    won: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for condition, evaluation in evaluations.items():
        for episode in _episodes(evaluation):
            if "@" not in episode.metadata["method"]:  # points of the sweep stand in frontier.csv
                won[(episode.metadata["method"], condition)].append(episode.success)
    with run.artifact("main_table").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["seed"] == str(run.manifest.seed)]
    told = {(row["method"], row["condition"]): float(row["success_rate"]) for row in rows}
    counted = {key: sum(found) / len(found) for key, found in won.items()}
    wrong = sorted(
        f"{method} ({condition})"
        for method, condition in told.keys() | counted.keys()
        if abs(told.get((method, condition), -1.0) - counted.get((method, condition), -2.0)) > 1e-6
    )
    facts: dict[str, float] = {"rows": len(told), "wrong": len(wrong)}
    if wrong or not told:
        what = ", ".join(wrong[:SHOWN]) or "the table has no rows"
        return Finding(False, f"table and traces disagree: {what}", facts)
    return Finding(True, f"{len(told)} success rates recounted from the traces, all equal", facts)


def _episodes(run: UpstreamRun) -> list[Episode]:
    return list(read_parquet(run.artifact("episodes"), Episode))
