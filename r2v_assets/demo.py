"""``r2v demo``: one whole experiment on this machine, and its main table."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from r2v_assets.materialize import materialize_partition
from r2v_assets.partitions import check_partition
from r2v_assets.project import root
from r2v_core.config import LoadedConfig
from r2v_core.console import rich_console
from r2v_core.runs import stopping
from r2v_core.runs.directories import relative_to
from r2v_core.stages.experiments import partition_config

PARTITION = "textworld:expert|1"
COLUMNS = {
    "success_rate": "success",
    "success_rate_ci": "interval",
    "worst_seed_sr": "worst z",
    "cvar_failure": "CVaR\nfailure",
    "llm_call_rate": "teacher\ncalls",
    "avg_cost": "cost",
}
"""Column of ``main_table.csv`` → heading; narrow enough for 80 characters."""
PERCENT = frozenset({"success_rate", "worst_seed_sr", "cvar_failure", "llm_call_rate"})


def demo(
    partition: str = PARTITION, config: str | None = None, overrides: Sequence[str] = (), force: bool = False
) -> None:
    """Materialise every asset of a partition that is not up to date, then print the results.

    A killed demo goes on where it stopped when it is called again.

    Raises:
        R2VError: for an unknown partition, a wrong config, or with the failed stage's own error.
    """
    console = rich_console(soft_wrap=True)
    chosen = check_partition(partition)
    loaded = partition_config(chosen, config, overrides, root())
    config = relative_to(loaded.path, root())
    shown = escape(f"{partition} with {config}")
    console.print(f"{shown}: every asset in order; Ctrl-C stops, the same command continues")
    began = time.monotonic()
    settings = {"config": config, "overrides": list(overrides)}
    with stopping.listening(), _signals() as received:
        try:
            ran = materialize_partition(chosen, loaded, settings, console, force=force)
        except (KeyboardInterrupt, stopping.Stopped) as stop:
            console.print(f"\n{escape(str(stop).strip()) or 'stopped'} (the same command)")
            raise SystemExit(128 + received()) from None
    took = time.monotonic() - began
    print_results(loaded, console)
    if ran:
        console.print(f"\n{ran} assets materialised in {took / 60:.1f} min.")
    else:
        console.print(f"\nEverything was up to date (checked in {took:.0f} s).")
    console.print("To see graph, runs, metadata and plots: make ui")


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """The last signal received: Dagster makes one and the same interruption of SIGINT and SIGTERM."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writing)  # Python writes there the number of each signal
    try:
        yield lambda: os.read(reading, 512)[-1]
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def print_results(loaded: LoadedConfig, console: Console) -> None:
    """The main table and where everything is."""
    folder = root() / loaded.config.paths.results
    path = folder / "structured_results" / "main_table.csv"
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    summarised = "all" if any(row["seed"] == "all" for row in rows) else rows[0]["seed"]
    for condition in sorted({row["condition"] for row in rows}):
        title = escape(f"{loaded.config.name}, seed {summarised}, {condition}")
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("method", no_wrap=True)
        for heading in COLUMNS.values():
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            if (row["seed"], row["condition"]) == (summarised, condition):
                table.add_row(escape(row["method"]), *(_cell(name, row[name]) for name in COLUMNS))
        console.print(table)
    for what, where in (("tables", path.parent), ("report", folder / "report.html"), ("figures", folder / "figures")):
        if where.exists():
            console.print(f"{what:8} {escape(_short(where))}")
    paths = loaded.config.paths
    console.print(f"runs     {paths.data}/runs, {paths.outputs}; indexed in data/registry.duckdb")


def _cell(name: str, text: str) -> str:
    if not text:
        return "–"
    try:
        number = float(text)
    except ValueError:
        return escape(text)
    return f"{number:.1%}" if name in PERCENT else f"{number:.3g}"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
