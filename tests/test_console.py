"""What a terminal is given to show, it must not obey."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from rich.table import Table

from r2v_core.console import print_json, print_table, printable, rich_console, say

EVIL = "\x1b]0;owned\x07 \x9b31m \u202e \x7f"
OBEYED = ["\x1b", "\x07", "\x9b", "\u202e", "\x7f"]


def test_tables_and_json_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"notes": EVIL, "tags": [EVIL], "n": 1}])
    shown = capsys.readouterr().out
    assert not any(character in shown for character in OBEYED) and "\\x1b]0;owned" in shown
    print_json({"notes": EVIL})
    shown = capsys.readouterr().out
    assert not any(character in shown for character in OBEYED) and json.loads(shown) == {"notes": EVIL}


def test_what_people_write_is_left_as_it_is() -> None:
    assert printable("größer → 日本\n\tx") == "größer → 日本\n\tx"


def test_lines_and_drawings_hold_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL, EVIL)
    say(EVIL, error=True)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console = rich_console(force_terminal=True, width=200)
    console.print(table)
    console.print(f"[bold]{EVIL}[/]")
    shown = capsys.readouterr()
    for text in (shown.out.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[3m", ""), shown.err):
        assert not any(character in text for character in OBEYED) and "\\x1b]0;owned" in text
    assert "\x1b[1m" in shown.out  # our own


PROTOCOLS = ("sandbox_worker", "benchmarks/textworld/games.py")
"""What answers another program on its standard output."""
PRINTING = ("print", "typer.echo", "click.echo", "sys.stdout.write", "sys.stderr.write")


def test_nothing_else_prints() -> None:
    root = Path(__file__).parents[1]
    found = []
    for path in sorted([*root.glob("r2v_core/**/*.py"), *root.glob("r2v_assets/**/*.py")]):
        name = path.relative_to(root).as_posix()
        if name == "r2v_core/console.py" or any(part in name for part in PROTOCOLS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in PRINTING
            if named or (isinstance(node, ast.Call) and ast.unparse(node.func) == "Console"):
                found.append(f"{name}:{node.lineno}")
    assert found == []
