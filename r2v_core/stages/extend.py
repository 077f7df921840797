"""Runs that build on a finished one: more steps from its adapter, more episodes beside its own.

The run that is built on is one more input, of the role ``base``, so that fingerprint and lineage name it; it stays as
it is. What the config asks for comes on top: ``training.bc.max_steps`` further steps, ``collection.episodes_per_task``
further episodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from r2v_core.config import LoadedConfig, section
from r2v_core.config.explain import shown
from r2v_core.errors import R2VError, nearest
from r2v_core.partition import Partition
from r2v_core.runs.agreement import recorded
from r2v_core.runs.directories import iter_runs, relative_to, runs_folder
from r2v_core.runs.fingerprint import BASE
from r2v_core.runs.manifest import MANIFEST_NAME, RunInput, RunManifest, read_manifest
from r2v_core.runs.stage import Stage
from r2v_core.stages.table import STAGES


def base_input(
    stage: Stage, partition: Partition, loaded: LoadedConfig, project: Path, named: str, inputs: Iterable[RunInput]
) -> RunInput:
    """The finished run to build on, as an input.

    Args:
        named: its directory, or its run id.
        inputs: what the new run reads besides.

    Raises:
        R2VError: if the stage can't be extended, there is no such run, it is unfinished or of another stage or
            partition, or its config differs in a key that both have to share.
    """
    if not stage.extends:
        able = ", ".join(each.name for each in STAGES.values() if each.extends)
        raise R2VError(f"--extend: '{stage.name}' starts anew each time; stages that can be extended: {able}")
    directory = _find(stage, loaded, project, named)
    base = read_manifest(directory)
    if (base.stage, base.partition) != (stage.name, partition.key):
        raise R2VError(
            f"--extend {named} is {base.stage} of '{base.partition}', not {stage.name} of '{partition.key}'; name a "
            "run of that"
        )
    if base.status != "done":
        raise R2VError(f"--extend {named} is '{base.status}', not done; the same command without --extend finishes it")
    for key in stage.extends:
        before, now = recorded(base, key), section(loaded.config, key)
        if before != now:
            raise R2VError(
                f"--extend {named}: {key} was {shown(before)} there and is {shown(now)} now; give it the same value"
            )
    _same_reference(base, inputs, named)
    return RunInput(role=BASE, run_id=base.run_id, digest=base.digest, path=relative_to(directory, project))


def _find(stage: Stage, loaded: LoadedConfig, project: Path, named: str) -> Path:
    for directory in (Path(named), project / named, runs_folder(project, loaded.config.paths, stage) / named):
        if (directory / MANIFEST_NAME).is_file():
            return directory.resolve()
    known = [run.manifest.run_id for run in iter_runs(project, loaded.config.paths, stage)]
    raise R2VError(f"--extend: no run '{named}'.{nearest(named, known)}")


def _same_reference(base: RunManifest, inputs: Iterable[RunInput], named: str) -> None:
    """DPO measures against the policy it began with, so that has to be the same one."""
    now = {item.role: item for item in inputs}
    for item in base.inputs:
        if item.role == "policy" and now["policy"].digest != item.digest:
            raise R2VError(
                f"--extend {named} was optimised against the policy of {item.run_id}, and {now['policy'].run_id} is "
                f"another; add --input policy={item.path}"
            )
