"""The ``r2v`` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from r2v_core import __version__
from r2v_core.benchmarks import survey
from r2v_core.benchmarks.swebench.cli import swebench_app
from r2v_core.console import Json, print_json, print_table
from r2v_core.errors import R2VError
from r2v_core.registry.cli import registry_app
from r2v_core.stages.calibrate import calibrate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="R2V: teach a small language model when to ask for help.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"r2v {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """R2V: teach a small language model when to ask for help."""


app.add_typer(registry_app, name="registry")
app.add_typer(swebench_app, name="swebench")
app.command()(calibrate)


@app.command()
def demo(
    partition: Annotated[str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes")] = "textworld:expert|1",
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option(help="dotted config override key=value; repeat the option for more")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="run every asset again, up to date or not")] = False,
) -> None:
    """Materialise every asset of one partition that is not up to date, and print the results."""
    from r2v_assets.demo import demo as run  # the orchestrator is loaded for this command only

    run(partition, config, overrides or [], force)


@app.command(epilog="Example: r2v benchmarks --json")
def benchmarks(as_json: Json = False) -> None:
    """The benchmarks: what each needs, whether it is ready here, and if not, what to do."""
    found = survey()
    if as_json:
        print_json(found)
    else:
        print_table([{**row, "ready": "yes" if row["ready"] else "no"} for row in found])


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
    rich_help_panel=None,
)
def slurm(context: typer.Context) -> None:
    """Prepare a SLURM cluster (deploy), check it (doctor), print a job (render), look at jobs (status)."""
    from r2v_assets.slurm.cli import main as run  # the orchestrator is loaded for this command only

    run(context.args)


def main() -> None:
    """Run the command line; a problem the user can fix is one line and exit status 2."""
    try:
        app()
    except R2VError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
