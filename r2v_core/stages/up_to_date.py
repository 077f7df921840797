"""Whether a stage has to run again: what ``r2v plan`` announces is what ``r2v demo`` does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from r2v_core.config import LoadedConfig
from r2v_core.partition import Partition
from r2v_core.runs.directories import find_runs
from r2v_core.runs.fingerprint import is_made_of
from r2v_core.runs.manifest import RunInput
from r2v_core.runs.spec import UpstreamRun
from r2v_core.runs.stage import Stage

PUBLISHED = {"result_tables": "structured_results/main_table.csv", "report": "report.html"}
"""Files that a stage also puts under ``paths.results``; gone, the stage has to run again."""


def run_up_to_date(
    stage: Stage, loaded: LoadedConfig, partition: Partition, project: Path, inputs: Iterable[RunInput]
) -> UpstreamRun | None:
    """The newest finished run that today's code, config and ``inputs`` would make again, if its files are there.

    Where they aren't, an older run does not take its place: stages that come after would read the newest.
    """
    paths, inputs = loaded.config.paths, list(inputs)
    for run in find_runs(project, paths, stage, partition.experiment, partition.seed):
        if is_made_of(run.manifest, stage, loaded, partition, inputs):
            files = [run.directory / name for name in run.manifest.artifacts.values()]
            if stage.name in PUBLISHED:
                files.append(project / paths.results / PUBLISHED[stage.name])
            return run if all(file.exists() for file in files) else None
    return None
