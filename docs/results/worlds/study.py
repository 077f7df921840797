"""The study of this folder: ``python docs/results/worlds/study.py SEED …`` from the project's root.

Makes every asset of ``textworld:expert@worlds|SEED`` that is not up to date (killed, it goes on where it stopped),
keeps the seed's outcomes here as ``seed<SEED>.jsonl.xz``, its router's learning curve as ``learning_curve_seed<SEED>``
(CSV and PNG), and makes tables and figures from all seeds that are here, wherever they were evaluated. Without a seed
it only makes tables and figures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from r2v_core.results import ResultsManager
from r2v_core.results.figures import save_figures
from r2v_core.results.packed import SUFFIX, pack, unpack

EXPERIMENT, RESULTS = "textworld:expert@worlds", "results/textworld_worlds"
FOLDER = Path(__file__).parent
TABLES = ("main_table", "comparisons", "frontier", "frontier_areas", "cost_ratios", "risk_scores", "ablations")
KEPT = (*(f"{table}.csv" for table in TABLES), "llm_summary.json")


def make(seed: int) -> None:
    """Run a seed to its report; keep its outcomes and its router's learning curve."""
    partition = ["--partition", f"{EXPERIMENT}|{seed}"]
    subprocess.run(["r2v", "demo", *partition], check=True)
    bundles = [one for one in ResultsManager(RESULTS).bundles if one.seed == seed]
    print(f"kept in {pack(bundles, FOLDER / f'seed{seed}{SUFFIX}')}")
    subprocess.run(["r2v", "learning-curve", *partition], check=True)
    for made in (Path(RESULTS) / "learning_curve" / f"seed{seed}{suffix}" for suffix in (".csv", ".png")):
        shutil.copyfile(made, FOLDER / f"learning_curve_{made.name}")


def tables() -> None:
    """Tables and figures over all seeds kept here."""
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(FOLDER.glob(f"seed*{SUFFIX}")):
            unpack(path, Path(folder) / "structured_results")
        manager = ResultsManager(folder)
        for made in [*manager.generate_all(), *save_figures(manager, Path(folder)).values()]:
            if made.suffix == ".png" or made.name in KEPT:
                shutil.copyfile(made, FOLDER / made.name)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        make(int(name))
    tables()
