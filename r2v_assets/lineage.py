"""What an asset's page says about where its run came from: links to upstream assets and runs, and merges unfolded."""

from __future__ import annotations

import json
from urllib.parse import quote

import dagster as dg

from r2v_assets.project import root
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import RunInput, RunManifest, read_manifest
from r2v_core.stages.table import STAGES

MERGE = "merge"
"""Stage of a run that is the merge of others; its ``merge.json`` says what was kept of each."""


def lineage_metadata(manifest: RunManifest) -> dict[str, dg.MetadataValue]:
    """``registry`` (how to look the run up), ``inputs`` (upstream runs with links), ``merged/<role>`` (sources)."""
    found: dict[str, dg.MetadataValue] = {
        "registry": dg.MetadataValue.md(
            f"```\nr2v registry show {manifest.run_id}\nr2v registry lineage {manifest.run_id} --direction both\n```"
        )
    }
    if manifest.dagster_run_id:
        found["dagster_run"] = dg.MetadataValue.dagster_run(manifest.dagster_run_id)
    if not manifest.inputs:
        return found
    rows = []
    for item in manifest.inputs:
        upstream = _manifest(item)
        rows.append(f"| {item.role} | {_asset_link(upstream)} | {_run_link(item, upstream)} | `{item.digest[:12]}` |")
        if upstream is not None and upstream.stage == MERGE:
            found[f"merged/{item.role}"] = _merge_table(item)
    head = "| role | asset | run | digest |\n| --- | --- | --- | --- |\n"
    return {**found, "inputs": dg.MetadataValue.md(head + "\n".join(rows))}


def _manifest(item: RunInput) -> RunManifest | None:
    try:
        return read_manifest(root() / item.path)
    except R2VError:
        return None  # deleted since; the check run_intact says so


def _asset_link(upstream: RunManifest | None) -> str:
    if upstream is None:
        return "files gone"
    if upstream.stage not in STAGES:
        return upstream.stage
    asset = STAGES[upstream.stage].asset
    return f"[{asset}](/assets/{asset}?partition={quote(upstream.partition, safe='')})"


def _run_link(item: RunInput, upstream: RunManifest | None) -> str:
    if upstream is None or not upstream.dagster_run_id:
        return f"`{item.run_id}`"
    return f"[{item.run_id}](/runs/{upstream.dagster_run_id})"


def _merge_table(item: RunInput) -> dg.MetadataValue:
    """One record a merged run: episodes kept, left out, and left out because their template is held out."""
    try:
        runs = json.loads((root() / item.path / "merge.json").read_text(encoding="utf-8"))["runs"]
    except OSError:
        return dg.MetadataValue.text("files gone")
    records = [dg.TableRecord({"run_id": run_id, **counts}) for run_id, counts in runs.items()]
    columns = [dg.TableColumn("run_id", "string"), *(dg.TableColumn(n, "int") for n in ("kept", "dropped", "held_out"))]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))
