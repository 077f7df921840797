"""The stages result_tables and report, run as users run them: planned, executed, published."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from r2v_assets.metadata import run_metadata
from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.results import ResultsManager
from r2v_core.results.report import page_script
from r2v_core.runs.manifest import RunManifest, read_manifest, utc_now, write_manifest
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.reporting import Reporter
from r2v_core.stages.experiments import load_config
from r2v_core.stages.plan import plan
from r2v_core.stages.runner import execute
from r2v_core.trajectory import Episode
from tests.results.finished import CALIBRATION, finished

Make = Callable[..., list[Episode]]

CONFIG = """
name: synthetic <b>test</b>
paths: {data: data, outputs: outputs, results: results/test, cache: data/cache}
evaluation: {bootstrap: 100}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "test.yaml").write_text(CONFIG)
    return tmp_path


def config(project: Path, *overrides: str) -> LoadedConfig:
    return load_config(project / "configs" / "test.yaml", list(overrides), project=project)


def evaluate(project: Path, make: Make, seed: int, *overrides: str, **options: Any) -> None:
    loaded = config(project, *overrides)
    for condition in ("clean", "noisy"):
        episodes = make(conditions=(condition,), seeds=(seed,), **options)
        finished(project, loaded, f"evaluate_{condition}", Partition("textworld", "expert", seed), episodes)
    finished(project, loaded, "train_router", Partition("textworld", "expert", seed), [])


def materialise(project: Path, stage: str, seed: int, sink: list[str] | None = None, *overrides: str) -> RunManifest:
    spec = plan(stage, Partition("textworld", "expert", seed), config(project, *overrides), project=project)
    return execute(spec, Reporter(stage, sink=sink.append if sink is not None else None))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables without their figures, which take most of the time, where nobody looks at them."""
    monkeypatch.setattr("r2v_core.stages.result_tables.save_figures", lambda *args: args[-1].mkdir() or {})


OPTIONS = {"tasks": 3, "zs": 2, "methods": ("r2v", "slm_only", "llm_only")}


def test_tables_of_one_seed(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    manifest = materialise(project, "result_tables", 1)
    results = project / "results" / "test"
    assert CALIBRATION in (results / "structured_results" / "llm_summary.json").read_text()
    names = {path.name for path in (results / "structured_results").iterdir()}
    assert names >= {
        "main_table.csv", "comparisons.csv", "ablations.csv", "llm_summary.json", "main_table.tex",
        "r2v_clean_seed1.json", "r2v_noisy_seed1.json", "slm_only_noisy_seed1.json",
    }  # fmt: skip
    run_dir = project / manifest.output_dir
    for name in ("main_table.csv", "comparisons.csv", "r2v_noisy_seed1.json"):
        published = (results / "structured_results" / name).read_bytes()
        assert published == (run_dir / "structured_results" / name).read_bytes()
    for path in manifest.artifacts.values():
        assert (run_dir / path).exists()
    plots = {name for name in run_metadata(manifest, run_dir) if name.startswith("plot/")}  # on the asset's page
    assert plots == {
        "plot/frontier_clean", "plot/frontier_noisy", "plot/success_per_seed", "plot/success_by_perturbation",
        "plot/reliability_clean", "plot/reliability_noisy", "plot/escalations_clean", "plot/escalations_noisy",
    }  # fmt: skip
    image = run_metadata(manifest, run_dir)["plot/frontier_noisy"].value
    assert str(image).startswith("![frontier_noisy](data:image/png;base64,")
    assert manifest.n_episodes == 3 * 3 + 3 * 3 * 2 and manifest.counts["methods"] == 3

    lines = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
    assert set(lines[0]) == {"method", "benchmark", "condition", "seed", "metric", "value", "ci_low", "ci_high", "n"}
    table = pd.read_csv(results / "structured_results" / "main_table.csv")
    for row in table.to_dict("records"):
        (line,) = (
            x
            for x in lines
            if (x["method"], x["condition"], x["metric"]) == (row["method"], row["condition"], "success_rate")
        )
        assert line["value"] == pytest.approx(row["success_rate"]) and line["seed"] == 1
    assert any(x["metric"] == "success_rate@family=cooking" for x in lines)
    preview = (run_dir / "preview.md").read_text()
    assert preview.count("\n| noisy | ") == 3 and "is not shown" in preview
    bundle = json.loads((results / "structured_results" / "r2v_noisy_seed1.json").read_text())
    assert bundle["metrics"]["success_rate"] == pytest.approx(
        table.set_index(["method", "condition"]).loc[("r2v", "noisy"), "success_rate"]
    )
    assert bundle["run_id"] == "evaluate_noisy_1"


def wandb_records(run_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Summary and history of the one offline W&B run in a folder."""
    from wandb.proto import wandb_internal_pb2

    (file,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    summary: dict[str, Any] = {}
    history: dict[str, Any] = {}
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for items, found in ((record.summary.update, summary), (record.history.item, history)):
            found.update({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return summary, history


def leveldb_records(data: bytes, block: int = 32768) -> list[bytes]:
    """Records of a log in LevelDB's format: a head of 7 bytes, then chunks (checksum 4, length 2, type 1) in blocks."""
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(part)
            part = b""
    return found


def test_results_go_to_wandb_where_it_is_asked_for(
    project: Path, make_episodes: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    evaluate(project, make_episodes, 1, **OPTIONS)
    with pytest.raises(R2VError, match="WANDB_MODE=ofline"):
        monkeypatch.setenv("WANDB_MODE", "ofline")
        materialise(project, "result_tables", 1)
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    manifest = materialise(project, "result_tables", 1, said)
    assert any("W&B run" in line and manifest.run_id in line for line in said)
    summary, history = wandb_records(project / manifest.output_dir)
    table = ResultsManager(project / manifest.output_dir).main_table.set_index(["condition", "method"])
    for condition, method in table.index:
        told = summary[f"{condition}/{method}/success_rate"]
        assert told == pytest.approx(table.loc[(condition, method), "success_rate"])
    assert history["tables/main_table/nrows"] == len(table) and history["tables/comparisons/nrows"] > 0
    assert {"figures/frontier_noisy/path", "figures/reliability_clean/path"} <= set(history)


def test_errors_are_counted_shown_and_no_success(project: Path, make_episodes: Make) -> None:
    def broken(**options: Any) -> list[Episode]:
        found = make_episodes(**options)
        won = [episode for episode in found if episode.success and episode.metadata["method"] == "llm_only"]
        for episode in won[:2]:
            episode.metadata["error"] = "environment: RuntimeError: boom"
            episode.success, episode.steps = False, episode.steps[:1]
        won[0].steps = []
        return found

    evaluate(project, broken, 1, **OPTIONS)
    manifest = materialise(project, "result_tables", 1)
    manager = ResultsManager(project / manifest.output_dir)
    table = manager.main_table.set_index(["condition", "method"])
    assert table["n_errors"].to_dict() == {
        (condition, method): 2 * (method == "llm_only") for condition, method in table.index
    }
    played = make_episodes(conditions=("noisy",), seeds=(1,), **OPTIONS)
    won = [episode.success for episode in played if episode.metadata["method"] == "llm_only"]
    assert table.loc[("noisy", "llm_only"), "success_rate"] == pytest.approx((sum(won) - 2) / len(won))
    assert any("4 of 27 episodes ended in an error" in caveat for caveat in manager.summary["caveats"])
    page = project / materialise(project, "report", 1).output_dir / "report.html"
    assert "4 of 27 episodes ended in an error" in page.read_text()


@pytest.mark.usefixtures("undrawn")
def test_verdicts_that_may_be_forged_are_counted_and_said(project: Path, make_episodes: Make) -> None:
    def flagged(**options: Any) -> list[Episode]:
        found = make_episodes(**options)
        next(e for e in found if e.metadata["method"] == "r2v").metadata["verdict_flags"] = ["settings: pytest.toml"]
        return found

    evaluate(project, flagged, 1, **OPTIONS)
    manager = ResultsManager(project / materialise(project, "result_tables", 1).output_dir)
    counted = manager.main_table.set_index(["condition", "method"])["n_flagged"]
    assert counted.to_dict() == {key: float(key[1] == "r2v") for key in counted.index}
    assert any("2 of 27 episodes changed what could forge a verdict" in caveat for caveat in manager.summary["caveats"])


def test_later_seeds_join_and_other_experiments_do_not(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    evaluate(project, make_episodes, 2, "agent.parallel=3", **OPTIONS)
    evaluate(project, make_episodes, 3, "benchmark.max_steps=5", **OPTIONS)
    said: list[str] = []
    materialise(project, "result_tables", 2, said)
    table = ResultsManager(project / "results" / "test").main_table
    assert set(table["seed"]) == {"1", "2", "all"}
    assert any("seed 3 (noisy) is left out" in line and "benchmark.max_steps" in line for line in said)


@pytest.mark.usefixtures("undrawn")
def test_digest_ignores_latency_and_sees_results(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    first = materialise(project, "result_tables", 1)
    path = project / "outputs" / "evaluate_noisy" / "evaluate_noisy_1"
    episodes = make_episodes(conditions=("noisy",), **OPTIONS)
    for episode in episodes:
        episode.steps[0].latency_s += 3.0
    write_parquet(path / "trajectories.parquet", episodes, Episode)
    slower = materialise(project, "result_tables", 1)
    assert slower.run_id != first.run_id and slower.digest == first.digest
    episodes[0].success = not episodes[0].success
    write_parquet(path / "trajectories.parquet", episodes, Episode)
    assert materialise(project, "result_tables", 1).digest != first.digest


@pytest.mark.usefixtures("undrawn")
def test_bundles_of_an_earlier_table_go(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    materialise(project, "result_tables", 1)
    folder = project / "results" / "test" / "structured_results"
    old = folder / "old_method_noisy_seed9.json"
    old.write_text((folder / "r2v_noisy_seed1.json").read_text())
    (folder / "notes.txt").write_text("mine")
    materialise(project, "result_tables", 1)
    assert not old.exists() and (folder / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
def test_tables_of_another_experiment_are_not_overwritten(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    materialise(project, "result_tables", 1)
    path = project / "results" / "test" / "structured_results" / "r2v_noisy_seed1.json"
    path.write_text(path.read_text().replace("textworld:expert", "textworld:other"))
    with pytest.raises(R2VError, match=r"belongs to 'textworld:other'.*paths\.results"):
        materialise(project, "result_tables", 1)


def sha256_of(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class Page(HTMLParser):
    """Tags and images of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts = 0
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script" and dict(attrs).get("type") not in ("text/plain", "application/json"):
            self.scripts += 1
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")


def test_report_is_one_page_with_its_own_script_alone(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    materialise(project, "result_tables", 1)
    manifest = materialise(project, "report", 1)
    text = (project / "results" / "test" / "report.html").read_text()
    assert text == (project / manifest.output_dir / manifest.artifacts["report"]).read_text()
    page = Page(text)
    assert page.scripts == 1 and "b" not in page.tags  # the config's name is text, not markup
    assert f"'sha256-{sha256_of(page_script())}'" in text.replace("&#39;", "'")
    assert "synthetic &lt;b&gt;test&lt;/b&gt;" in text
    assert len(page.images) >= 6 and all(src.startswith("data:image/svg+xml;base64,") for src in page.images)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert manifest.counts["episodes"] == 3 * 3 + 3 * 3 * 2
    assert {item.role for item in manifest.inputs} == {"tables", "clean", "noisy"}
    row = ResultsManager(project / "results" / "test").main_table.set_index(["method", "condition"])
    assert f"{row.loc[('slm_only', 'noisy'), 'success_rate']:.1%}" in text
    assert "not shown" in text and "One partition seed" in text and "light-dark(" in text


def test_the_report_holds_the_episodes_of_all_seeds_in_the_tables(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    evaluate(project, make_episodes, 2, **OPTIONS)
    materialise(project, "result_tables", 2)
    manifest = materialise(project, "report", 2)
    page = (project / manifest.output_dir / manifest.artifacts["report"]).read_text()
    packed = re.findall(r'<script type="text/plain" id="[\w-]+">([^<]*)</script>', page)
    index, *shards = [json.loads(gzip.decompress(base64.b64decode(text))) for text in packed]
    assert set(index["seed"]) == {1, 2} and len(index["method"]) == manifest.counts["episodes"] == 54
    for row, shard in enumerate(index["shard"]):
        assert len(shards[shard]["episodes"][str(row)]["steps"]) == index["n_steps"][row]


@pytest.mark.usefixtures("undrawn")
def test_a_report_needs_the_tables_own_evaluations(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    evaluate(project, make_episodes, 2, **OPTIONS)
    materialise(project, "result_tables", 1)
    folder = project / "outputs" / "evaluate_noisy"
    (folder / "evaluate_noisy_2").rename(folder / "elsewhere")
    (folder / "elsewhere" / "run_manifest.json").rename(folder / "elsewhere" / "kept.json")
    with pytest.raises(R2VError, match=r"evaluate_noisy_2 \(seed 2, noisy\), which is gone; materialise result_tables"):
        materialise(project, "report", 1)


@pytest.mark.usefixtures("undrawn")
def test_evaluated_again_the_tables_come_first(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    materialise(project, "result_tables", 1)
    folder = project / "outputs" / "evaluate_noisy"
    shutil.copytree(folder / "evaluate_noisy_1", folder / "later")
    manifest = read_manifest(folder / "later")
    write_manifest(manifest.model_copy(update={"run_id": "later", "created_at": utc_now()}), folder / "later")
    with pytest.raises(R2VError, match=r"do not hold its evaluation later; materialise result_tables again"):
        materialise(project, "report", 1)


def test_the_report_is_the_same_each_time(project: Path, make_episodes: Make) -> None:
    evaluate(project, make_episodes, 1, **OPTIONS)
    materialise(project, "result_tables", 1)
    assert materialise(project, "report", 1).digest == materialise(project, "report", 1).digest


def test_a_missing_input_is_named(project: Path) -> None:
    with pytest.raises(R2VError, match="needs 'result_tables'"):
        materialise(project, "report", 1)
    assert read_manifest  # the planner never made a run
    assert not (project / "outputs" / "report").exists()
