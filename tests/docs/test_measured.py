"""What pages show of a real demo is written by a script, so that it can be made again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from r2v_assets.manual.measured import FIRST, answered, with_table
from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.stages.cli import stage_parser
from r2v_core.stages.table import STAGES
from tests.docs.documented import QUERIES, ROOT


def test_a_query_is_followed_by_the_registrys_answer(tmp_path: Path) -> None:
    registry = DataRegistry(tmp_path)
    registry.rebuild()
    asked = "```sql\nSELECT 1 AS a, NULL AS b, 0.123456 AS c, 'x|y' AS d\n```\n\n"
    page = f"Before\n\n{asked}| old |\n| --- |\n| 2 |\n\nafter\n\n{asked}"
    answer = "| a | b | c | d |\n| --- | --- | --- | --- |\n| 1 |  | 0.1235 | x\\|y |\n"
    made = answered(page, registry)
    assert made == f"Before\n\n{asked}{answer}\nafter\n\n{asked}{answer}"
    assert answered(made, registry) == made


def test_every_query_of_the_cookbook_is_answered(tmp_path: Path) -> None:
    registry = DataRegistry(tmp_path)
    registry.rebuild()
    cookbook = (ROOT / "docs/sql-cookbook.md").read_text(encoding="utf-8")
    asked = sum(page == "docs/sql-cookbook.md" for page, _ in QUERIES)
    assert answered(cookbook, registry).count("\n| --- |") == asked == cookbook.count("\n| --- |") >= 10


def test_the_quickstart_holds_the_noisy_rows_by_success(tmp_path: Path) -> None:
    columns = ("method", "condition", "success_rate", "success_rate_ci", "llm_call_rate", "avg_cost",
               "safety_failure_rate")  # fmt: skip
    rows = [("slm_only", "noisy", 0.5, "[0.2, 0.8]", 0, 9.6, 0), ("r2v", "clean", 1, "[1, 1]", 0.2, 80, 0),
            ("llm_only", "noisy", 1, "[0.6, 1]", 1, 171, 0.25)]  # fmt: skip
    table = tmp_path / "main_table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    made = with_table((ROOT / "docs/quickstart.md").read_text(encoding="utf-8"), table)
    assert "| `llm_only` | 100.0% | [0.6, 1] | 100.0% | 171 | 25.0% |\n| `slm_only` | 50.0% | [0.2, 0.8] |" in made
    assert "`r2v` | " not in made and with_table(made, table) == made
    with pytest.raises(R2VError, match="before its table is gone"):
        with_table("no table", table)


@pytest.mark.parametrize(("stage", "options"), [(stage, options) for stage, *options in FIRST])
def test_what_runs_first_is_a_command_of_a_stage(stage: str, options: list[str]) -> None:
    given = stage_parser(stage).parse_args(options)
    assert stage in STAGES and "paper" in given.tags and all("=" in one for one in given.overrides or ())
