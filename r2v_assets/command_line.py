"""``dagster asset materialize`` answered in one line where Dagster's own answer is a traceback.

The command loads the definitions in its own process, so they can look at its arguments before Dagster does. In any
other process this does nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import dagster as dg

from r2v_assets.partitions import check_partition
from r2v_assets.preflight import refuse_missing_inputs
from r2v_assets.run_config import COMPARISON, refuse_unknown_assets
from r2v_assets.settings import ClusterConfig, RunSettings, StageConfig
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError, nearest
from r2v_core.stages.table import BY_ASSET

COMMAND = ["asset", "materialize"]
FIELDS = sorted({*StageConfig.model_fields, *RunSettings.model_fields, *ClusterConfig.model_fields})


def check_command_line(arguments: Sequence[str], defs: dg.Definitions) -> None:
    """Refuse what ``dagster asset materialize`` can't do, before any work.

    Args:
        arguments: what follows the program's name.
        defs: the project's definitions.

    Raises:
        click.UsageError: naming the argument and what to write instead.
    """
    if list(arguments[:2]) != COMMAND:
        return
    given = _options(arguments[2:])
    if "--partition-range" in given:
        raise click.UsageError(
            "--partition-range: each partition is a run of its own; select partitions in the UI (Materialize), or use "
            "dagster job backfill"
        )
    if "--select" not in given or "--help" in given:
        return  # Dagster says so in one line
    assets = _selected(given["--select"][-1], defs)
    if not assets:
        return  # what has no partitions has no inputs that could be missing
    if "--partition" not in given:
        raise click.UsageError(
            f"--partition is missing: an asset is made for an experiment and a seed, e.g. --select {assets[0]} "
            "--partition 'textworld:expert|1' (in quotes; configs/experiments.yaml lists them)"
        )
    try:
        partition = check_partition(given["--partition"][-1])
        run_config = _run_config(given, assets, defs)
        with _instance() as instance:
            refuse_missing_inputs(instance, run_config, assets, partition)
    except R2VError as error:
        raise click.UsageError(str(error)) from None


def _instance() -> dg.DagsterInstance:
    """The instance that Dagster will use: a passing one where none is set."""
    return dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()


def _options(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Option → its values, in either way of writing them; short ones under their long names."""
    long = {"-c": "--config"}
    found: dict[str, list[str]] = {}
    name = ""
    for word in arguments:
        if word.startswith("--") and "=" in word:
            option, _, value = word.partition("=")
            found.setdefault(option, []).append(value)
            name = ""
        elif re.match(r"--?[a-z]", word):
            name = long.get(word, word)
            found.setdefault(name, [])
        elif name:
            found[name].append(word)
            name = ""
    return {option: values or [""] for option, values in found.items()}


def _selected(selection: str, defs: dg.Definitions) -> list[str]:
    """The assets of a selection that are stages, upstream ones first."""
    words, names = selection.split(","), [*BY_ASSET, COMPARISON]
    try:
        keys = dg.AssetSelection.from_coercible(words).resolve(list(defs.assets or ()))  # type: ignore[arg-type]
    except dg.DagsterInvalidSubsetError:
        keys = set()
    except (dg.DagsterError, ValueError) as error:
        raise click.UsageError(f"--select {selection}: not a selection of assets ({_first_line(error)})") from None
    if not keys:
        groups = sorted({f"group:{stage.group}" for stage in BY_ASSET.values()})
        unknown = next((word for word in words if word.strip("+*") not in names), selection).strip("+* ")
        known = groups if unknown.startswith("group:") else names
        unknown = unknown.replace('"', "")
        raise click.UsageError(f"--select {selection}: there is no such asset.{nearest(unknown, known)}")
    return [asset for asset in BY_ASSET if dg.AssetKey(asset) in keys]


def _run_config(given: dict[str, list[str]], assets: Sequence[str], defs: dg.Definitions) -> dict[str, Any]:
    """The run's config as Dagster will read it, each field known.

    Raises:
        R2VError: naming the file, or the field.
    """
    merged: dict[str, Any] = {}
    for text in given.get("--config-json", []):
        given_here = json.loads(text)  # Dagster has read it already
        if not isinstance(given_here, dict):
            raise R2VError(
                f'--config-json {text}: write an object, e.g. \'{{"ops": {{"{assets[0]}": {{"config": {{}}}}}}}}\''
            )
        merged |= given_here
    for pattern in given.get("--config", []):
        for path in [Path(pattern)] if Path(pattern).is_absolute() else sorted(Path().glob(pattern)):
            merged |= read_yaml(path, f"--config {path}", dots=True).data
    refuse_unknown_assets(merged.get("ops") or {})
    try:
        dg.validate_run_config(defs.resolve_job_def("full_pipeline"), merged)
    except dg.DagsterInvalidConfigError as error:
        said = " ".join(str(error.errors[0].message).split())
        field = re.search(r'entry "([^"]+)"', said)
        hint = nearest(field[1], FIELDS) if field else ""
        said = said.split(" Expected: ")[0]
        raise R2VError(f"run config: {said}{hint}") from None
    return merged


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
