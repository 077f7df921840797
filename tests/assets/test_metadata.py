"""What an asset's page shows of a run: names that people read, tables, plots, commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import dagster as dg
import pytest

from r2v_assets.labels import label
from r2v_assets.metadata import run_metadata
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.trajectory import Episode, Observation, Step


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        ("auc", "AUC"),
        ("ece_before", "ECE before"),
        ("threshold", "threshold"),
        ("label_share_step", "label share step"),
        ("success_slm_only", "success slm_only"),
    ],
)
def test_numbers_have_the_names_of_the_field(count: str, shown: str) -> None:
    assert label(count) == shown


def manifest(**fields: object) -> RunManifest:
    values = {
        "run_id": "r", "stage": "train_router", "benchmark": "b", "provider": "p", "model": "m", "seed": 1,
        "partition": "b:m|1", "status": "done", "created_at": "2026-01-01T00:00:00Z", "output_dir": "r",
    }  # fmt: skip
    return RunManifest.model_validate(values | fields)


def test_counts_never_hide_what_stands_there_already(tmp_path: Path) -> None:
    counts = {"auc": 0.71239, "episodes": 5, "threshold": 0.3}
    found = run_metadata(manifest(counts=counts, n_episodes=7, n_success=7, n_steps=9), tmp_path)
    assert found["AUC"].value == 0.7124 and found["threshold"].value == 0.3 and found["episodes"].value == 7
    assert not [name for name in found if name.startswith("count/")]


def test_the_two_registry_commands_stand_on_lines_of_their_own(tmp_path: Path) -> None:
    lines = str(run_metadata(manifest(), tmp_path)["registry"].value).splitlines()
    assert lines[1:3] == ["r2v registry show r", "r2v registry lineage r --direction both"]


def test_episodes_have_a_row_count_and_described_columns(tmp_path: Path) -> None:
    step = Step(index=0, observation=Observation(state="s"), action="go", actor="teacher")
    episode = Episode(
        episode_id="e", benchmark="b", task_id="t", template_id="t", goal="g", steps=[step], success=True, metadata={}
    )
    write_parquet(tmp_path / "e.parquet", [episode, episode.model_copy(update={"episode_id": "f"})], Episode)
    found = run_metadata(manifest(artifacts={"episodes": "e.parquet"}), tmp_path)
    assert found["dagster/row_count"].value == 2
    schema = found["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    columns = {column.name: column for column in schema.schema.columns}
    assert columns["success"].type == "bool" and columns["success"].description == "the benchmark's own verdict"


def test_small_tables_are_shown_whole_with_numbers_as_numbers(tmp_path: Path) -> None:
    with (tmp_path / "main_table.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["method", "success_rate", "ece"], ["r2v", "0.5", ""], ["slm_only", "1", "nan"]])
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"task_id": "t"}) + "\n")
    found = run_metadata(manifest(artifacts={"main_table": "main_table.csv", "tasks": "tasks.jsonl"}), tmp_path)
    schema = found["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    types = {column.name: column.type for column in schema.schema.columns}
    assert types == {"method": "string", "success_rate": "float", "ece": "string"}
    table = found["table/main_table"]
    assert isinstance(table, dg.TableMetadataValue)
    assert table.records[0].data == {"method": "r2v", "success_rate": 0.5, "ece": ""}
    assert table.records[1].data == {"method": "slm_only", "success_rate": 1, "ece": "nan"}
    assert found["dagster/row_count"].value == 2
