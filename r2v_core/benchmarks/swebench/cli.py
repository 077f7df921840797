"""``r2v swebench``: instances from PyPI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r2v_core.console import Json, print_json, print_table, say
from r2v_core.errors import R2VError, nearest

swebench_app = typer.Typer(no_args_is_help=True, help="Build SWE-bench instances from PyPI.", rich_markup_mode=None)


@swebench_app.callback()
def _swebench() -> None:
    """SWE-bench instances from PyPI."""


@swebench_app.command(epilog="Example: r2v swebench build --only andialbrecht__sqlparse-0.4.3")
def build(
    only: Annotated[
        list[str] | None, typer.Option(help="build only the instance of this id; repeat the option for more")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="folder to build in (default: $R2V_SWEBENCH, else data/swebench)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the instances of configs/swebench/instances.yaml: download releases, run their tests in the sandbox."""
    from r2v_core.benchmarks.swebench import build as builder  # for this command only
    from r2v_core.benchmarks.swebench.data import built_folder

    recipes = builder.read_table()
    known = {recipe.instance_id: recipe for recipe in recipes}
    for name in only or []:
        if name not in known:
            raise R2VError(f"no instance '{name}' in {builder.TABLE}.{nearest(name, known)}")
    log = (lambda line: say(line, error=True)) if as_json else say
    chosen = [known[name] for name in only] if only else recipes
    rows = builder.rows(builder.build(chosen, folder or built_folder(None), log=log))
    (print_json if as_json else print_table)(rows)
