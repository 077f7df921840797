"""The pages of the reference that are made from the code, each time they are read: they can't be out of date."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import typer.main

from r2v_core.config.explain import expected, schema_keys, shown
from r2v_core.config.schema import Config
from r2v_core.registry.schema import create, relations
from r2v_core.stages.cli import stage_parser
from r2v_core.stages.table import STAGES

_WIDTH = 100
"""Characters in a line of a command's help."""


def keys() -> str:
    """Every key of the config: what it may be, its default, its meaning."""
    known = schema_keys(Config)
    defaults = Config().model_dump(mode="json")
    parts = [
        "# Configuration keys",
        "Made from `r2v_core/config/sections`. Each benchmark and provider defines and checks its own `options`.",
    ]
    for section in ("", *(key for key, node in known.items() if "properties" in node)):
        rows = [
            (f"`{key}`", expected(known[key]), f"`{shown(_at(defaults, key))}`", known[key].get("description", ""))
            for key in known
            if key.rpartition(".")[0] == section and "properties" not in known[key]
        ]
        if rows:
            parts += [f"## {section or 'name'}"] + ([known[section].get("description", "")] if section else [])
            parts.append(_table(("key", "value", "default", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _at(defaults: Mapping[str, Any], dotted: str) -> Any:
    value: Any = defaults
    for name in dotted.split("."):
        value = value[name]
    return value


def commands() -> str:
    """The help of every command."""
    from r2v_assets.cli import app

    parts = ["# Commands", "Made from the commands' own `--help`."]
    for path, command in _walk("r2v", typer.main.get_command(app)):
        context = command.make_context(
            path, [], resilient_parsing=True, terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        parts += [f"## {path}", f"```text\n{command.get_help(context).strip()}\n```"]
    parts += ["## Stages", "Each stage is its own command; all take the same options."]
    rows = [(f"`python -m {' '.join(stage.command)}`", f"`{stage.asset}`", stage.title) for stage in STAGES.values()]
    parts += [_table(("command", "asset", "what it does"), rows), f"```text\n{_stage_help()}\n```"]
    return "\n\n".join(parts) + "\n"


def _stage_help() -> str:
    made = stage_parser("collect")
    made.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=_WIDTH)
    return made.format_help().strip()


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it, with their full names."""
    if path == "r2v slurm":  # its app is loaded when it is called
        from r2v_assets.slurm.cli import slurm_app

        command = typer.main.get_command(slurm_app)
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _walk(f"{path} {name}", below)


def columns() -> str:
    """Every table and view of the registry, with its columns."""
    con = duckdb.connect()
    create(con)
    parts = ["# Columns of the registry", "Made from `r2v_core/registry/schema.sql`. Times are UTC."]
    for name in relations():
        comment = con.execute(
            "SELECT comment FROM duckdb_tables() WHERE table_name = $1 UNION ALL "
            "SELECT comment FROM duckdb_views() WHERE view_name = $1",
            [name],
        ).fetchone()
        rows = con.execute(
            "SELECT '`' || column_name || '`', data_type, comment FROM duckdb_columns() WHERE table_name = ? "
            "ORDER BY column_index",
            [name],
        ).fetchall()
        said = comment[0] if comment and comment[0] else ""
        parts += [f"## {name}", said, _table(("column", "type", "meaning"), rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """A value in a table: no pipe ends the cell, and what stands in angle brackets is no HTML."""
    text = " ".join(str("" if value is None else value).split()).replace("|", "\\|")
    return text if text.startswith("`") else text.replace("<", "&lt;")


GENERATED: dict[str, Callable[[], str]] = {
    "reference/keys.md": keys,
    "reference/commands.md": commands,
    "reference/columns.md": columns,
}
"""Path below ``docs/`` → what makes the page."""
