"""Every table of an experiment, from its stored run bundles."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from r2v_core.evaluation.frame import Frames
from r2v_core.results.answer import answer
from r2v_core.results.bundles import Analysis, Bundle, bundle_frames, read_bundles
from r2v_core.results.comparisons import (
    ABLATION_COLUMNS,
    REFERENCE,
    compare_methods,
    comparison_table,
    comparisons,
)
from r2v_core.results.cost_ratios import cost_ratios
from r2v_core.results.evaluations import evaluations
from r2v_core.results.family import correct
from r2v_core.results.frontier import area_table, compare_areas, frontier
from r2v_core.results.latex import main_table_latex, standalone
from r2v_core.results.risk_scores import risk_scores
from r2v_core.results.summary import llm_summary, records
from r2v_core.results.tables import main_table
from r2v_core.runs.manifest import write_atomic

LOG = logging.getLogger(__name__)

TABLES_FOLDER = "structured_results"


class ResultsManager:
    """The tables of one experiment.

    ``directory`` is the experiment's results folder; its ``structured_results/`` holds the run bundles that
    ``result_tables`` wrote, and receives the tables. That folder itself may be given too. Nothing else is read.
    Each ``generate_*`` writes one file, whole or not at all, and returns its path.

    Raises (any method):
        R2VError: if there are no bundles, one is broken, or they don't belong together.
    """

    def __init__(self, directory: Path | str) -> None:
        directory = Path(directory)
        self.folder = directory if directory.name == TABLES_FOLDER else directory / TABLES_FOLDER

    @cached_property
    def bundles(self) -> list[Bundle]:
        """The runs that the tables are made from."""
        return read_bundles(self.folder)

    @property
    def analysis(self) -> Analysis:
        """How the numbers are computed."""
        return self.bundles[0].analysis

    @cached_property
    def frames(self) -> Frames:
        """Episodes and steps of the compared methods; sweeps and ablations are not among them."""
        return bundle_frames(bundle for bundle in self.bundles if bundle.part == "main")

    @cached_property
    def all_frames(self) -> Frames:
        """Episodes and steps of everything, sweeps (``<rule>@<share>``) and variants of ablations as methods."""
        return bundle_frames(self.bundles)

    @cached_property
    def frontier(self) -> pd.DataFrame:
        """The threshold sweep: every point with its intervals."""
        return frontier(self.all_frames, self.analysis)

    @cached_property
    def frontier_areas(self) -> pd.DataFrame:
        """The area under each scoring rule's curve, and how much larger r2v's is."""
        return self._contrasts[1]

    @cached_property
    def cost_ratios(self) -> pd.DataFrame:
        """The areas over cost if a teacher step cost another multiple of a small-model step; no verdicts."""
        return cost_ratios(self.all_frames, self.analysis)

    @cached_property
    def risk_scores(self) -> pd.DataFrame:
        """AUC of each rule's risk score on r2v's steps, and how much larger r2v's is."""
        return risk_scores(self.frames, self.analysis)

    @cached_property
    def ablations(self) -> pd.DataFrame:
        """The full method's r2v against every variant on the same episodes; all variants are one family for Holm."""
        names = {bundle.method: bundle.ablation for bundle in self.bundles if bundle.part == "ablation"}
        wanted = [b for b in self.bundles if b.part == "ablation" or (b.part == "main" and b.method == REFERENCE)]
        if not names:
            return pd.DataFrame(columns=ABLATION_COLUMNS)
        table = comparisons(bundle_frames(wanted), self.analysis)
        return table.assign(ablation=table["baseline"].map(names))[ABLATION_COLUMNS]

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """Long form: method, benchmark, condition, seed, metric, value, ci_low, ci_high, n, spread."""
        return evaluations(self.frames, self.analysis)

    @cached_property
    def all_evaluations(self) -> pd.DataFrame:
        """The same of everything, sweeps and variants of ablations too; holds :attr:`evaluations`, which it saves."""
        everything = evaluations(self.all_frames, self.analysis)
        main = everything["method"].isin(self.frames.episodes["method"].unique())
        self.evaluations = everything[main].reset_index(drop=True)
        return everything

    @cached_property
    def main_table(self) -> pd.DataFrame:
        """Wide form, the columns of main_table.csv."""
        return main_table(self.evaluations)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """r2v against each other method."""
        return self._contrasts[0]

    @cached_property
    def _contrasts(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Comparisons of methods and of areas, one family for Holm's correction."""
        methods = compare_methods(self.frames, self.analysis)
        rows, areas = compare_areas(self.all_frames, self.analysis)
        correct([*methods, *areas])
        return comparison_table(methods), area_table(rows)

    @cached_property
    def answer(self) -> str:
        """The answer to the report's question, in one sentence."""
        return answer(self.evaluations, records(self.comparisons), records(self.frontier_areas))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of llm_summary.json."""
        found = llm_summary(self.evaluations, self.comparisons, self.bundles, self.analysis)
        found = {"question": found.pop("question"), "answer": self.answer, **found}
        tables = {"ablations": self.ablations, "frontier_areas": self.frontier_areas}
        tables |= {"cost_ratios": self.cost_ratios, "risk_scores": self.risk_scores}
        return found | {name: records(table) for name, table in tables.items()}

    def generate_main_table_csv(self) -> Path:
        """Write ``main_table.csv``: one row a method, condition and seed, and 'all' over several seeds."""
        return self._csv("main_table.csv", self.main_table)

    def generate_comparison_csv(self) -> Path:
        """Write ``comparisons.csv``: r2v against each other method on the same episodes."""
        return self._csv("comparisons.csv", self.comparisons)

    def generate_ablation_csv(self) -> Path:
        """Write ``ablations.csv``: the full method against every variant; its header alone where none was run."""
        if self.ablations.empty:
            LOG.info("no ablation evaluations among the runs: ablations.csv holds only its header")
        return self._csv("ablations.csv", self.ablations)

    def generate_frontier_csv(self) -> list[Path]:
        """Write ``frontier.csv``, ``frontier_areas.csv`` and ``cost_ratios.csv``; headers alone without a sweep."""
        return [
            self._csv("frontier.csv", self.frontier),
            self._csv("frontier_areas.csv", self.frontier_areas),
            self._csv("cost_ratios.csv", self.cost_ratios),
        ]

    def generate_risk_score_csv(self) -> Path:
        """Write ``risk_scores.csv``: the AUC of each rule's risk score on the same steps, with intervals."""
        return self._csv("risk_scores.csv", self.risk_scores)

    def generate_latex_table(self) -> Path:
        r"""Write ``main_table.tex`` (to ``\input``) and ``main_table_standalone.tex`` (to compile as it is)."""
        text = main_table_latex(self.evaluations, alpha=self.analysis.cvar_alpha, confidence=self.analysis.confidence)
        path = self.folder / "main_table.tex"
        write_atomic(path, text)
        write_atomic(self.folder / "main_table_standalone.tex", standalone(path.name))
        return path

    def generate_llm_summary(self) -> Path:
        """Write ``llm_summary.json``: setting, numbers, intervals, significance and caveats in one document."""
        path = self.folder / "llm_summary.json"
        write_atomic(path, json.dumps(self.summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return path

    def generate_all(self) -> list[Path]:
        """Write every table and return the paths."""
        return [
            self.generate_main_table_csv(),
            self.generate_comparison_csv(),
            self.generate_ablation_csv(),
            *self.generate_frontier_csv(),
            self.generate_risk_score_csv(),
            self.generate_latex_table(),
            self.generate_llm_summary(),
        ]

    def _csv(self, name: str, table: pd.DataFrame) -> Path:
        path = self.folder / name
        write_atomic(path, table.to_csv(index=False, lineterminator="\n"))
        return path
