"""What an orchestrator's job runs: every asset of a partition that is not up to date, each stage as a job of its own.

``r2v slurm run`` submits it; by hand it is ``python -m r2v_assets.slurm_run --partition 'textworld:expert|1'``.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from r2v_assets.materialize import chosen_stages, materialize_partition
from r2v_assets.partitions import check_partition
from r2v_assets.project import root
from r2v_assets.side_by_side import materialize_side_by_side
from r2v_core.console import rich_console, say
from r2v_core.errors import R2VError
from r2v_core.runs import stopping
from r2v_core.runs.directories import relative_to
from r2v_core.stages.experiments import partition_config

STOPPED = 143


def run(
    partition: Annotated[str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes")],
    asset: Annotated[list[str] | None, typer.Option(help="this asset alone; repeat the option for more")] = None,
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[list[str] | None, typer.Option(help="dotted config override key=value; repeatable")] = None,
    only: Annotated[str | None, typer.Option(help="make this one of the assets", hidden=True)] = None,
) -> None:
    """Materialise what is not up to date, and at once what does not depend on each other; stop at the first failure."""
    console = rich_console(soft_wrap=True)
    chosen = check_partition(partition)
    loaded = partition_config(chosen, config, overrides or [], root())
    settings = {"config": relative_to(loaded.path, root()), "overrides": overrides or []}
    with stopping.listening():
        try:
            if only is not None:
                materialize_partition(chosen, loaded, settings, console, assets=asset, only=[only])
                return
            ran = materialize_side_by_side(chosen, loaded, settings, console, assets=asset)
        except (KeyboardInterrupt, stopping.Stopped) as stop:
            console.print(escape(str(stop).strip()) or "stopped")
            raise SystemExit(STOPPED) from None
    wanted = len(chosen_stages(loaded, asset))
    console.print(f"{escape(partition)}: {ran} of {wanted} assets made, the others were up to date")


def main() -> None:
    """Run the command line; a problem is one line and exit status 2."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(run)
    try:
        app()
    except R2VError as error:
        say(f"error: {error}", error=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
