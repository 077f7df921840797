"""``r2v compare``: result tables of several experiments, or of one experiment's seeds, side by side.

The registry says which result tables there are; their numbers are computed from the run bundles by the functions that
made them (:mod:`r2v_core.results.evaluations`). Nothing is written to the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2v_core.console import Json, print_json, say
from r2v_core.errors import R2VError, nearest
from r2v_core.partition import Partition
from r2v_core.runs.agreement import disagreement
from r2v_core.runs.directories import project_root
from r2v_core.runs.manifest import RunManifest, write_atomic
from r2v_core.stages.ablations import FOLDER
from r2v_core.stages.experiments import DEFAULT_PATH, Experiment, load_experiments, partition_config
from r2v_core.stages.table import all_sections, get_stage

if TYPE_CHECKING:
    from r2v_core.registry import DataRegistry, RunRow
    from r2v_core.results.bundles import Bundle
    from r2v_core.results.side_by_side import Column

TABLES, CLEAN, NOISY = "result_tables", "evaluate_clean", "evaluate_noisy"


class By(str, Enum):
    """What a column group is."""

    experiment = "experiment"
    seed = "seed"


class Condition(str, Enum):
    """Under what was evaluated."""

    clean = "clean"
    noisy = "noisy"


class Form(str, Enum):
    """How the table is printed."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"


@dataclass
class Comparison:
    """The columns, what their reader has to know, and what is missing with the command that makes it."""

    columns: list[Column] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sources: dict[str, RunManifest] = field(default_factory=dict)
    """Experiment → the run of result_tables that its numbers come from."""

    def text(self, form: Form) -> str:
        """The table with its notes; in Markdown with what is missing too, as CSV alone."""
        from r2v_core.results import side_by_side

        if form is Form.csv:
            return str(side_by_side.wide_table(self.columns).to_csv(index=False, lineterminator="\n"))
        if form is Form.latex:
            return side_by_side.latex(self.columns, self.notes)
        return side_by_side.markdown(self.columns, [*self.notes, *(f"missing: {line}" for line in self.missing)])

    def write(self, folder: Path) -> list[Path]:
        """Write ``comparison.csv``, ``.md``, ``.tex`` and a LaTeX document around the latter; their paths.

        Raises:
            R2VError: if the folder can't be written.
        """
        from r2v_core.results.latex import standalone

        texts = {
            "comparison.csv": self.text(Form.csv),
            "comparison.md": self.text(Form.markdown),
            "comparison.tex": self.text(Form.latex),
            "comparison_standalone.tex": standalone("comparison.tex"),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                write_atomic(folder / name, text)
        except OSError as error:
            raise R2VError(f"{folder}: can't write there ({error.strerror}); choose another folder") from None
        return [folder / name for name in texts]


def compare_experiments(
    registry: DataRegistry,
    experiments: Sequence[str],
    *,
    by: By = By.experiment,
    seeds: Sequence[int] = (),
    condition: Condition | None = None,
) -> Comparison:
    """Set experiments side by side.

    Args:
        registry: where their result tables are looked up.
        experiments: as :func:`resolve` gives them.
        by: a column group an experiment, or one a seed.
        seeds: partition seeds that count (default: all that an experiment's tables hold).
        condition: one of the two (default: both).

    Raises:
        R2VError: if the experiment list or the registry can't be read.
    """
    from r2v_core.results.differences import differences
    from r2v_core.results.side_by_side import columns_of

    found, runs = Comparison(), dict[str, RunManifest]()
    listed = _listed(registry.project)
    for experiment in experiments:
        source = _Source(registry, experiment, listed.get(experiment))
        bundles = source.bundles(seeds, condition, found)
        if not bundles:
            continue
        assert source.tables is not None
        found.sources[experiment] = source.tables
        runs |= {row.run_id: registry.get_run(row.run_id) for row in source.evaluations}
        found.columns += columns_of(experiment, bundles, by is By.seed, alone=len(experiments) == 1)
    single = [column for column in found.columns if by is By.experiment or len(column.seeds) == 1]
    found.notes = [*differences(single, runs, by is By.seed), *found.notes]
    return found


def _listed(project: Path) -> dict[str, Experiment]:
    file = project / DEFAULT_PATH
    return load_experiments(file).experiments if file.is_file() else {}


def resolve(registry: DataRegistry, names: Iterable[str]) -> list[str]:
    """The experiments that names stand for, each once: listed ones, or such as the registry holds result tables of.

    A benchmark stands for all its listed experiments.

    Raises:
        R2VError: for any other name, with the nearest known one.
    """
    listed = _listed(registry.project)
    registered = {_experiment(row) for row in registry.query(stage=TABLES)}
    wanted: list[str] = []
    for name in names:
        chosen = [one for one in listed if one.partition(":")[0] == name]
        if name in listed or name in registered:
            chosen = [name]
        if not chosen:
            raise R2VError(
                f"unknown experiment '{name}': neither {DEFAULT_PATH} nor the registry has it."
                f"{nearest(name, {*listed, *registered})}"
            )
        wanted += chosen
    return list(dict.fromkeys(wanted))


def _experiment(row: RunRow) -> str:
    return row.partition.rpartition("|")[0]


class _Source:
    """What the registry knows of one experiment's results."""

    def __init__(self, registry: DataRegistry, experiment: str, listed: Experiment | None) -> None:
        self.registry, self.experiment, self.listed = registry, experiment, listed

    def _runs(self, stage: str) -> list[RunRow]:
        """Finished runs of a stage, newest first."""
        found = self.registry.query(stage=stage, status="done", benchmark=self.experiment.partition(":")[0])
        return [row for row in found if _experiment(row) == self.experiment]

    @cached_property
    def evaluations(self) -> list[RunRow]:
        """Finished evaluations, but for those that ablations made for themselves."""
        found = [*self._runs(NOISY), *self._runs(CLEAN)]
        return [row for row in found if FOLDER not in Path(row.output_dir).parts]

    @cached_property
    def tables(self) -> RunManifest | None:
        """The newest result tables made in the world of today's config; the newest ones where there are none such."""
        manifests = [self.registry.get_run(row.run_id) for row in self._runs(TABLES)]
        return next((one for one in manifests if self.disagreement(one) is None), manifests[0] if manifests else None)

    def disagreement(self, manifest: RunManifest) -> str | None:
        """Where a run was made otherwise than today's config says; None for an experiment that is no longer listed."""
        if self.listed is None:
            return None
        partition = Partition.parse(f"{self.experiment}|{manifest.seed}")
        loaded = partition_config(partition, self.listed.config, (), self.registry.project)
        return disagreement(all_sections(get_stage(TABLES), loaded.config), loaded, manifest)

    def bundles(self, seeds: Sequence[int], condition: Condition | None, found: Comparison) -> list[Bundle]:
        """The compared methods' bundles; what is missing or has to be known is added to ``found``."""
        from r2v_core.results.manager import ResultsManager

        if self.tables is None:
            found.missing.append(f"{self.experiment} has no finished result tables; {self._remedy(*seeds[:1])}")
            return []
        try:
            folder = self.registry.project / self.tables.output_dir / self.tables.artifacts.get("tables", "")
            bundles = [bundle for bundle in ResultsManager(folder).bundles if bundle.part == "main"]
        except R2VError as error:
            found.missing.append(f"{self.experiment}: {error}; {self._remedy(self.tables.seed)}")
            return []
        if why := self.disagreement(self.tables):
            found.notes.append(f"{self.experiment} is not as its config of today would make it: {why}.")
        held = {bundle.seed for bundle in bundles}
        for seed in sorted(set(seeds) - held):
            found.missing.append(f"{self.experiment} has no seed {seed} in its result tables; {self._remedy(seed)}")
        self._say_what_is_newer(bundles, seeds, found)
        return [
            bundle
            for bundle in bundles
            if (not seeds or bundle.seed in seeds) and condition in (None, bundle.condition)
        ]

    def _say_what_is_newer(self, bundles: Sequence[Bundle], seeds: Sequence[int], found: Comparison) -> None:
        """Seeds evaluated after the tables were made are no part of them."""
        assert self.tables is not None
        (made,) = (row.created_at for row in self._runs(TABLES) if row.run_id == self.tables.run_id)
        since = {
            row.seed
            for row in self.evaluations
            if (row.finished_at or row.created_at) > made and (not seeds or row.seed in seeds)
        }
        for seed in sorted(since - (set(seeds) - {bundle.seed for bundle in bundles})):
            found.notes.append(
                f"{self.experiment}: seed {seed} was evaluated after these tables were made; {self._remedy(seed)}"
            )

    def _remedy(self, seed: int | None = None) -> str:
        """The command that makes result tables: the tables alone where both evaluations are there, else everything."""
        clean, noisy = ({row.seed for row in self.evaluations if row.stage == stage} for stage in (CLEAN, NOISY))
        evaluated = clean & noisy
        seed = seed if seed is not None else min(evaluated, default=1)
        key = f"{self.experiment}|{seed}"
        if seed in evaluated:
            how = f"dagster asset materialize -m r2v_assets.definitions --select result_tables --partition '{key}'"
        else:
            how = f"r2v demo --partition '{key}'"
        return f"make them: {how}"


def compare(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...", help="<benchmark>:<teacher>[@<variant>], or a benchmark for all of its experiments"
        ),
    ],
    by: Annotated[By, typer.Option(help="One group of columns per experiment, or per seed.")] = By.experiment,
    seeds: Annotated[str, typer.Option(help="Seeds to use, e.g. 1,2,3 (default: all in the tables).")] = "",
    condition: Annotated[Condition | None, typer.Option(help="Show only this condition (default: both).")] = None,
    form: Annotated[Form, typer.Option("--format", help="Format of the table.")] = Form.markdown,
    output: Annotated[Path | None, typer.Option(help="Folder to write comparison.csv, .md and .tex to.")] = None,
    as_json: Json = False,
) -> None:
    """Result tables side by side: methods × experiments, or methods × seeds. Status 1 if anything is missing."""
    from r2v_core.registry import DataRegistry

    registry = DataRegistry(project_root())
    chosen = resolve(registry, experiments)
    found = compare_experiments(registry, chosen, by=by, seeds=_numbers(seeds), condition=condition)
    if not found.columns:
        raise R2VError("nothing to compare: " + "\n".join(found.missing))
    if as_json:
        from r2v_core.results.side_by_side import records

        print_json({"rows": records(found.columns), "notes": found.notes, "missing": found.missing})
    else:
        say(found.text(form), end="")
        notes = [f"note: {note}" for note in found.notes] if form is Form.csv else []
        missing = [f"missing: {line}" for line in found.missing] if form is not Form.markdown else []
        say(*notes, *missing, error=True)
    for path in found.write(output) if output else ():
        say(f"wrote {path}", error=True)
    raise typer.Exit(1 if found.missing else 0)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise R2VError(f"--seeds {text}: write numbers with commas between them, e.g. --seeds 1,2,3") from None
