"""``r2v calibrate``: which threshold gives a wanted share of teacher calls, and what it does on validation tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from r2v_core.console import say
from r2v_core.errors import R2VError
from r2v_core.models.labels import LABELS, PROGRESS


def calibrate(
    teacher_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="share of steps that the teacher is to play, e.g. 0.2")
    ],
    partition: Annotated[
        str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes; its newest finished router is read")
    ] = "textworld:expert|1",
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    router: Annotated[Path | None, typer.Option(help="run directory of another router to read instead")] = None,
) -> None:
    """Print the router's threshold for a wanted share of teacher calls, what it does, and how to use it."""
    directory = router or newest_router(partition, config)
    found = share_threshold(directory, teacher_share)
    say(f"router {directory}")
    say(f"threshold {found['threshold']:.4f} (the router's own: {found['own']:.4f})")
    say(f"  escalates {found['share']:.1%} of {found['n']} logged validation steps,")
    say(f"  and {found['caught']:.1%} of the {LABELS[found['label']].summed}")
    for level in found["played"]:
        say(
            f"  played at threshold {level['threshold']:.4f}: teacher calls {level['share']:.1%}, success "
            f"{level['success']:.1%} on the validation tasks, {'' if level.get('certified') else 'not '}certified"
        )
    say("Train with it:")
    say(
        f"  python -m r2v_core.stages.train_router --partition '{partition}' "
        f"--overrides training.router.teacher_share={teacher_share:g}"
    )
    say("Evaluate the present router there and elsewhere, all scoring rules side by side:")
    say(
        f"  python -m r2v_core.stages.evaluate_noisy --partition '{partition}' "
        f"--overrides 'evaluation.sweep=[{teacher_share:g}]'"
    )


def newest_router(partition: str, config: str | None) -> Path:
    """Run directory of a partition's newest finished router.

    Raises:
        R2VError: if there is none, with the command that makes it.
    """
    from r2v_core.partition import Partition
    from r2v_core.runs.directories import find_runs, project_root
    from r2v_core.stages.experiments import partition_config
    from r2v_core.stages.table import get_stage

    project, wanted = project_root(), Partition.parse(partition)
    paths = partition_config(wanted, config, (), project).config.paths
    runs = find_runs(project, paths, get_stage("train_router"), wanted.experiment, wanted.seed)
    if not runs:
        raise R2VError(
            f"no finished router of '{partition}' under {paths.outputs}; make it first:\n"
            f"  dagster asset materialize -m r2v_assets.definitions --select router --partition '{partition}'"
        )
    return runs[0].directory


def share_threshold(directory: Path, share: float) -> dict[str, Any]:
    """The threshold of a router run for a wanted share of escalations, and its effect on the validation steps.

    Returns:
        ``threshold``, ``own`` (the one saved), ``share`` reached, ``n`` steps, ``label``: what the router learnt,
        ``caught``: the share of failing steps (or of benefit) that is escalated, and ``played``: the nearest
        thresholds that were tried in closed loop, one on each side where there are both.

    Raises:
        R2VError: if the directory holds no finished router run, or the share is outside [0, 1].
    """
    try:
        lines = (directory / "validation.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line) for line in lines]
        settings = json.loads((directory / "router.json").read_text(encoding="utf-8"))
        own, levels = settings["threshold"], settings["calibration"]["levels"].get("r2v", [])
        probability = [step["probability"] for step in steps]
        label = [float(step["label"]) for step in steps]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise R2VError(f"{directory}: not a finished router run ({error}); materialise 'router' again") from None
    from r2v_core.training.router_threshold import threshold_for_share

    threshold = threshold_for_share(probability, share)
    above = [level for level in levels if level["threshold"] > threshold]
    below = [level for level in levels if level["threshold"] <= threshold]
    return {
        "threshold": threshold,
        "own": own,
        "share": sum(p > threshold for p in probability) / len(steps),
        "n": len(steps),
        "label": settings.get("label", PROGRESS),
        "caught": sum(t for p, t in zip(probability, label, strict=True) if p > threshold) / max(sum(label), 1e-9),
        "played": below[-1:] + above[:1],
    }
