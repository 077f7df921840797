"""``r2v registry export`` and ``export-evals``."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from r2v_core.console import Json, print_json, say
from r2v_core.errors import R2VError
from r2v_core.registry.options import File, Project, open_existing


class Form(str, Enum):
    """How a line of the file looks; the names of :data:`r2v_core.registry.export.FORMATS`."""

    messages = "messages"
    sharegpt = "sharegpt"
    prompt_completion = "prompt-completion"


def export(
    output: Annotated[Path, typer.Option(help="The .jsonl file to write.")],
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN...")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition on the table runs, instead of run ids.")] = None,
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="messages, sharegpt: one episode per line; prompt-completion: one step to learn per line."
        ),
    ] = Form.messages,
    successful: Annotated[bool, typer.Option("--successful", help="Export only episodes that succeeded.")] = False,
    stage: Annotated[list[str] | None, typer.Option(help="Stage to take (default: collect, perturb).")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Split to take (default: train).")] = None,
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Write trajectories as chats for other trainers, as JSONL with equal records once."""
    from r2v_core.registry.export import export as write
    from r2v_core.registry.selection import SPLITS, STAGES

    if bool(runs) == bool(where):
        raise R2VError("say what to export: run ids, or --where with a condition on the table runs")
    found = open_existing(project, registry)
    ids = runs or [row.run_id for row in found.query(where=where)]
    if not ids:
        raise R2VError(f"--where {where}: no run meets it; r2v registry query lists them")
    episodes = found.iter_episodes(ids, deduplicate=False, stages=stage or STAGES, splits=split or SPLITS)
    counts = write(episodes, output, form.value, successful)
    if as_json:
        return print_json({"output": str(output), **counts})
    left_out = {
        "failed": "failed episodes", "errors": "episodes that ended in an error",
        "untaught": "episodes that teach nothing", "equal": "records that were there already",
    }  # fmt: skip
    told = ", ".join(f"{counts[key]} {what}" for key, what in left_out.items() if counts[key])
    say(
        f"{counts['records']} records of {counts['episodes']} episodes in {output}"
        + (f"; left out: {told}" if told else "")
    )
    return None


def export_evals(
    output: Annotated[Path, typer.Option(help="The folder to write logs into, for `inspect view --log-dir`.")],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs of evaluate_clean or evaluate_noisy.")],
    as_json: Json = False,
    project: Project = None,
    registry: File = None,
) -> None:
    """Write evaluations as logs of inspect_ai: one log per method, every episode with its verdict and decisions."""
    from r2v_core.registry.eval_logs import check_evaluation, write_logs

    found = open_existing(project, registry)
    written = []
    for manifest in [found.get_run(run) for run in runs]:
        check_evaluation(manifest)
        episodes = found.iter_episodes([manifest.run_id], deduplicate=False, stages=None, splits=None)
        written += write_logs(manifest, episodes, output)
    if as_json:
        return print_json({"output": str(output), "logs": [path.name for path in written]})
    say(f"{len(written)} logs in {output}; to look at them: inspect view --log-dir {shlex.quote(str(output))}")
    return None
