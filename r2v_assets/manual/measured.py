"""What the documentation shows of a real demo, made again: ``python -m r2v_assets.manual.measured`` in a checkout.

``make demo`` has to have finished there. The SQL cookbook's answers need a little more than the demo (a second seed's
data, two short trainings), which is made first; then its tables and the quickstart's are written, and pictures taken.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2v_assets.manual import pictures
from r2v_assets.manual.reader import DOCS, ROOT
from r2v_core.console import say
from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry

RESULTS = ROOT / "results/mrp/structured_results"
SEED_2 = ("--partition", "textworld:expert|2", "--tag", "paper")
SHORT = ("--overrides", "data.merge=benchmark = 'textworld' AND stage = 'collect' AND status = 'done'",
         "training.bc.max_steps=2", "training.bc.batch_size=2")  # fmt: skip
FIRST: tuple[tuple[str, ...], ...] = (
    ("task_suite", *SEED_2),
    ("collect", *SEED_2),
    ("perturb", *SEED_2),
    ("train_bc", "--tag", "two-seeds", "paper", *SHORT),
)
"""Stages that the cookbook's page says were run after the demo, with their options."""
_ANSWERED = re.compile(r"(```sql\n(?P<query>(?:.*\n)*?)```\n\n)(?:\|.*\n)*")
_TABLE = re.compile(r"(?<=<!-- the demo's table -->\n\n)(?:\|.*\n)*")


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A table; numbers to four digits, nothing where there is no value."""

    def cell(value: Any) -> str:
        if value is None or value != value:
            return ""
        text = (f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}") if isinstance(value, float) else str(value)
        return text.replace("|", "\\|")

    lines = [columns, ["---"] * len(columns), *([cell(row[name]) for name in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def answered(page: str, registry: DataRegistry) -> str:
    """The cookbook with the answers that this registry gives."""

    def answer(found: re.Match[str]) -> str:
        frame = registry.sql(found["query"])
        return found[1] + markdown(frame.to_dict("records"), list(frame.columns))

    return _ANSWERED.sub(answer, page)


def with_table(page: str, main_table: Path) -> str:
    """The quickstart with the noisy rows of the demo's main table, by success."""
    with main_table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["condition"] == "noisy"]
    rows.sort(key=lambda row: (-float(row["success_rate"]), float(row["avg_cost"])))
    shown = [
        {
            "method": f"`{row['method']}`", "success": f"{float(row['success_rate']):.1%}",
            "interval": row["success_rate_ci"], "teacher calls": f"{float(row['llm_call_rate']):.1%}",
            "cost units": f"{float(row['avg_cost']):.0f}", "unsafe": f"{float(row['safety_failure_rate']):.1%}",
        }
        for row in rows
    ]  # fmt: skip
    made, n = _TABLE.subn(lambda _: markdown(shown, list(shown[0])), page)
    if n != 1:
        raise R2VError("docs/quickstart.md: the line '<!-- the demo's table -->' before its table is gone")
    return made


def main() -> None:
    """Make what the cookbook needs, then write tables and take pictures."""
    if not (RESULTS / "main_table.csv").exists():
        raise R2VError(f"{RESULTS}: no results of a demo; run `make demo` first")
    for stage, *options in FIRST:
        subprocess.run([sys.executable, "-m", f"r2v_core.stages.{stage}", *options], cwd=ROOT, check=True)
    registry = DataRegistry(ROOT)
    registry.sync()
    cookbook, quickstart = DOCS / "sql-cookbook.md", DOCS / "quickstart.md"
    cookbook.write_text(answered(cookbook.read_text(encoding="utf-8"), registry), encoding="utf-8")
    quickstart.write_text(with_table(quickstart.read_text(encoding="utf-8"), RESULTS / "main_table.csv"), "utf-8")
    say(f"written: {cookbook}, {quickstart}")
    for path in pictures.take(ROOT, DOCS):
        say(f"taken: {path}")


if __name__ == "__main__":
    main()
