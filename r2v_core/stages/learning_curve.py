"""``r2v learning-curve``: would more router templates make a better router? From steps that were logged already."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2v_core.console import Json, print_json, print_table, say
from r2v_core.errors import R2VError

if TYPE_CHECKING:
    import pandas as pd

    from r2v_core.config.schema import Config
    from r2v_core.runs.spec import UpstreamRun
    from r2v_core.training.learning_curve import Point

STAGE = "router_features"


def learning_curve(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="run directory of router_features (default: the partition's newest)"),
    ] = None,
    partition: Annotated[
        str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes; read where no RUN is given")
    ] = "textworld:expert|1",
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(help="dotted config override key=value, e.g. training.router.scorer=logistic; repeat for more"),
    ] = None,
    subsets: Annotated[int, typer.Option(min=2, help="random subsets of each size; all templates are one")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="folder for table and figure (default: learning_curve in the results folder)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the router's scorer on 10, 20, 40, … router templates and see how good it is on validation templates.

    A curve that still rises (AUC) or falls (log loss, Brier score) at its end says that more router templates
    (benchmark.splits.router) would help; one that is flat says that they would not, and that features, labels or
    scorer are the limit. Entropy and −log p alone are printed besides: a router has to be better than these.

    Nothing is played, and no run is made or changed. The scorer is the one that training.router.scorer names; with
    auto, the one that auto chooses on all router templates, at every size. Each subset takes six trainings (five for
    calibration), so the time is that of 6 × sizes × subsets trainings.
    """
    from r2v_core.runs.directories import project_root

    project = project_root()
    source, settings = _source(run, partition, config, overrides or [], project)
    table = curve_table(source, settings, subsets, lambda line: say(line, error=True))
    folder = output or project / settings.paths.results / "learning_curve"
    paths = write_curve(table, source, folder)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    if as_json:
        print_json(rows)
        return
    say(f"{STAGE} {source.directory}")
    print_table([{name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()} for row in rows])
    say(*[f"wrote {path}" for path in paths])


def _source(
    run: Path | None, partition: str, config: str | None, overrides: list[str], project: Path
) -> tuple[UpstreamRun, Config]:
    """The run to read and the configuration of its partition.

    Raises:
        R2VError: if the directory is no finished run of router_features, or the partition has none.
    """
    from r2v_core.partition import Partition
    from r2v_core.runs.directories import find_runs, runs_folder
    from r2v_core.runs.manifest import read_manifest
    from r2v_core.runs.spec import UpstreamRun
    from r2v_core.stages.experiments import partition_config
    from r2v_core.stages.table import get_stage

    if run is not None:
        manifest = read_manifest(run)
        if manifest.stage != STAGE:
            raise R2VError(f"{run} is a run of '{manifest.stage}'; name one of '{STAGE}'")
        if manifest.status != "done":
            raise R2VError(f"{run} is '{manifest.status}', not done; finish it first")
        settings = partition_config(Partition.parse(manifest.partition), config, overrides, project).config
        return UpstreamRun(run, manifest), settings
    wanted = Partition.parse(partition)
    settings = partition_config(wanted, config, overrides, project).config
    stage = get_stage(STAGE)
    runs = find_runs(project, settings.paths, stage, wanted.experiment, wanted.seed)
    if not runs:
        raise R2VError(
            f"no finished run of '{STAGE}' of '{partition}' in {runs_folder(project, settings.paths, stage)}; make it "
            "first:\n"
            f"  dagster asset materialize -m r2v_assets.definitions --select {STAGE} --partition '{partition}'"
        )
    return runs[0], settings


def curve_table(source: UpstreamRun, settings: Config, subsets: int, tell: Callable[[str], None]) -> pd.DataFrame:
    """The curve of a run's logged steps.

    Args:
        source: of router_features.
        settings: whose router is trained.
        subsets: of each size.
        tell: told what is being trained.

    Returns:
        Columns ``name, templates, steps, subsets`` and of each metric its mean and ``<metric>_sd``.

    Raises:
        R2VError: if there are too few templates or steps, or labels of one class.
    """
    import pandas as pd
    from threadpoolctl import threadpool_limits

    from r2v_core.runs.artifacts import verify
    from r2v_core.stages.router_rows import feature_names, read_rows
    from r2v_core.training.lagrangian import fit_failure_model
    from r2v_core.training.learning_curve import METRICS, learning_curve, sizes
    from r2v_core.training.scorers import Fitting, compare

    verify(source.directory, source.manifest)
    rows, validation = read_rows(source.artifact("features"))
    sizes(len({row.template_id for row in rows}))  # refused before anything is trained
    router = settings.training.router
    names = feature_names(router, rows[0], tell)
    scorer: str = router.scorer
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):  # small matrices: threads only wait
        fitting = Fitting(names, router, settings.agent, source.manifest.seed, Path(folder))
        if scorer == "auto":
            tell("all templates: cross-fitting every scorer, to take the one that auto chooses")
            scorer = compare(rows, fitting, fit_failure_model(rows))[0].scorer
        points = list(learning_curve(rows, validation, scorer, fitting, subsets, tell))
    return pd.DataFrame(
        {"name": one.name, "templates": one.templates, "steps": one.steps, "subsets": one.subsets}
        | {name: value for metric in METRICS for name, value in _pair(metric, one)}
        for one in points
    )


def _pair(metric: str, point: Point) -> list[tuple[str, float]]:
    return [(metric, point.mean[metric]), (f"{metric}_sd", point.spread[metric])]


def write_curve(table: pd.DataFrame, source: UpstreamRun, folder: Path) -> list[Path]:
    """Write ``seed<k>.csv`` and ``seed<k>.png`` (SVG and PDF beside it); returns the two paths.

    Raises:
        R2VError: if the folder can't be written.
    """
    from r2v_core.results.learning_figure import learning_curve_figure
    from r2v_core.results.plotting import save
    from r2v_core.runs.manifest import write_atomic

    name = f"seed{source.manifest.seed}"
    path = folder / f"{name}.csv"
    title = f"Learning from more router templates: {source.manifest.partition}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, table.to_csv(index=False, lineterminator="\n"))
        return [path, save(learning_curve_figure(table, title), folder, name)]
    except OSError as error:
        raise R2VError(f"{folder}: can't write there ({error.strerror}); choose another folder (--output)") from None
