"""The ``r2v`` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from r2v_core import __version__
from r2v_core.benchmarks import survey
from r2v_core.benchmarks.swebench.cli import swebench_app
from r2v_core.console import Json, print_json, print_table, say
from r2v_core.errors import R2VError
from r2v_core.registry.cli import registry_app
from r2v_core.runs.directories import project_root
from r2v_core.runs.storage import storage_error
from r2v_core.serving.cli import serve
from r2v_core.stages.calibrate import calibrate
from r2v_core.stages.compare import compare
from r2v_core.stages.forecast_cli import plan
from r2v_core.stages.learning_curve import learning_curve
from r2v_core.teachers.readiness import ask_one_token, survey_teachers

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="R2V: teach a small language model when to ask for help.",
    epilog="Documentation, offline: r2v docs · r2v docs slurm · r2v docs training.router.delta",
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"r2v {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """R2V: teach a small language model when to ask for help."""


app.add_typer(registry_app, name="registry", epilog="More: r2v docs registry")
app.add_typer(swebench_app, name="swebench", epilog="More: r2v docs benchmarks")
app.command()(calibrate)
app.command(
    epilog="Examples: r2v learning-curve · r2v learning-curve --partition 'textworld:expert@worlds|1' "
    "--overrides training.router.scorer=boosting · r2v learning-curve data/mrp/runs/RUN --output curve"
)(learning_curve)
app.command(
    epilog="Examples: r2v compare textworld:expert textworld:expert@study · r2v compare textworld --output results/all "
    "· r2v compare textworld:expert --by seed --condition noisy --format latex"
)(compare)

app.command(
    epilog="Examples: r2v plan 'textworld:expert|1' "
    "· r2v plan 'textworld:expert|3' --config configs/textworld/study.yaml "
    "· r2v plan 'humaneval:gpt-4o|1' --overrides teacher.limits.budget_usd=20 --json"
)(plan)

app.command(
    epilog="Examples: r2v serve 'textworld:smollm2|1' "
    "· r2v serve 'textworld:expert|1' --teacher gpt-4o-mini --overrides teacher.limits.budget_usd=5"
)(serve)


@app.command()
def demo(
    partition: Annotated[str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes")] = "textworld:expert|1",
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option(help="dotted config override key=value; repeat the option for more")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="make every asset again, even if it is up to date")] = False,
) -> None:
    """Make every asset of one partition that is not up to date, and print the results."""
    from r2v_assets.demo import demo as run  # the orchestrator is loaded for this command only

    run(partition, config, overrides or [], force)


@app.command(epilog="Example: r2v benchmarks --json")
def benchmarks(as_json: Json = False) -> None:
    """List the benchmarks: what each needs, whether it is ready on this machine and, if not, what to do."""
    found = survey()
    if as_json:
        print_json(found)
    else:
        print_table([{**row, "ready": "yes" if row["ready"] else "no"} for row in found])


@app.command(epilog="Examples: r2v teachers · r2v teachers --offline --json · r2v teachers --ask gpt-4o-mini")
def teachers(
    ask: Annotated[
        str | None, typer.Option(metavar="NAME", help="request a one-token reply from this teacher, and pay for it")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="send no requests; check only keys, packages and files")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the teachers: whether each can be asked from here, what it costs and, if it can't, what to do."""
    project = project_root()
    found = [ask_one_token(ask, project)] if ask else survey_teachers(project, network=not offline)
    if as_json:
        print_json(found)
    elif ask:
        say(*[f"{key:14} {'' if value is None else value}" for key, value in found[0].items()])
    else:
        print_table([{**row, "ready": "yes" if row["ready"] else "no"} for row in found])


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
    rich_help_panel=None,
)
def slurm(context: typer.Context) -> None:
    """Prepare a SLURM cluster (deploy), check it (doctor), submit a pipeline (run), manage jobs (status, cancel)."""
    from r2v_assets.slurm.cli import main as run  # the orchestrator is loaded for this command only

    run(context.args)


@app.command(epilog="Examples: r2v docs · r2v docs sql-cookbook · r2v docs candidates.k · r2v docs slurm --open")
def docs(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="PAGE|WORDS", help="a page, a config key, an error message or any words"),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--open", help="open the page in a browser; needs the site that `make docs` builds")
    ] = False,
) -> None:
    """Show the documentation, offline: a list of pages, one page, or what the pages say about some words."""
    from r2v_assets.manual.reader import show

    show(" ".join(words or []), browser)


PAGES = {
    "demo": "quickstart",
    "plan": "experiments",
    "compare": "compare",
    "calibrate": "router",
    "learning-curve": "router",
    "serve": "serve",
    "benchmarks": "benchmarks",
    "teachers": "teachers",
    "registry": "registry",
    "registry sql": "sql-cookbook",
    "registry merge": "data",
    "registry export": "data",
    "swebench": "benchmarks",
    "swebench build": "benchmarks",
}
"""Command → the page that its help names; commands of the registry that are not listed name the registry's."""


def _name_pages(typer_app: typer.Typer, above: str = "") -> None:
    for info in typer_app.registered_commands:
        name = info.name or getattr(info.callback, "__name__", "").replace("_", "-")
        if page := PAGES.get(f"{above}{name}", PAGES.get(above.strip())):
            info.epilog = " · ".join(filter(None, [info.epilog, f"More: r2v docs {page}"]))


_name_pages(app)
_name_pages(registry_app, "registry ")
_name_pages(swebench_app, "swebench ")


def main() -> None:
    """Run the command line; a problem the user can fix is one line and exit status 2."""
    try:
        app()
    except Exception as error:
        told = storage_error(error) or error
        if not isinstance(told, R2VError):
            raise
        from r2v_assets.manual.reader import remedy

        more = " (more: r2v docs troubleshooting)" if remedy(str(told)) else ""
        say(f"error: {told}{more}", error=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
