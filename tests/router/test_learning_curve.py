"""The learning curve: what each size is trained on, what it is judged by, and the command that draws it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.agent.features import FEATURES
from r2v_core.config.schema import AgentConfig, RouterConfig
from r2v_core.errors import R2VError
from r2v_core.evaluation.calibration import auc, brier_score, log_loss
from r2v_core.evaluation.scores import debiased_calibration_error
from r2v_core.models.router import RouterNet, RouterRow
from r2v_core.results.learning_figure import PANELS, learning_curve_figure
from r2v_core.runs.jsonl import write_records
from r2v_core.runs.manifest import RunManifest, read_manifest, write_manifest
from r2v_core.training.lagrangian import FailureModel
from r2v_core.training.learning_curve import METRICS, Point, learning_curve, sizes
from r2v_core.training.scorers import SCORERS, Fitting, compare, mlp, train_scorers

MakeRows = Callable[..., list[RouterRow]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def rows(make_rows: MakeRows) -> list[RouterRow]:
    return make_rows(1, tasks=24, seeds=1)


@pytest.fixture(scope="module")
def validation(make_rows: MakeRows) -> list[RouterRow]:
    return make_rows(2, "validation", tasks=12, seeds=1)


def fitting(folder: Path) -> Fitting:
    return Fitting(FEATURES, RouterConfig.model_validate({"scorer": "mlp", "epochs": 10}), AgentConfig(), 1, folder)


def curve(rows: list[RouterRow], validation: list[RouterRow], folder: Path, subsets: int = 2) -> list[Point]:
    return list(learning_curve(rows, validation, "mlp", fitting(folder), subsets, lambda line: None))


def labels(rows: Sequence[RouterRow]) -> np.ndarray:
    return np.array([row.label for row in rows])


def test_sizes_double_and_end_with_all() -> None:
    assert sizes(160) == [10, 20, 40, 80, 160] and sizes(100) == [10, 20, 40, 80, 100] and sizes(11) == [10, 11]
    with pytest.raises(R2VError, match=r"10 router templates .* raise benchmark\.splits\.router"):
        sizes(10)


def test_the_last_point_is_the_router_that_the_stage_would_train(
    rows: list[RouterRow], validation: list[RouterRow], tmp_path: Path
) -> None:
    points = curve(rows, validation, tmp_path)
    assert [(p.name, p.templates, p.subsets) for p in points] == [
        ("mlp", 10, 2), ("mlp", 20, 2), ("mlp", 24, 1), ("entropy_router", 24, 1),
        ("logprob_router", 24, 1),
    ]  # fmt: skip
    made = compare(rows, fitting(tmp_path), FailureModel(0.05, 0.0, 1.0))
    scorer = train_scorers(rows, made, fitting(tmp_path))["mlp"]
    x, y = fitting(tmp_path).x(validation), labels(validation)
    p = scorer.probability(x)
    last = points[2]
    assert last.steps == len(rows) and np.isnan(list(last.spread.values())).all()
    assert last.mean["auc"] == pytest.approx(auc(p, y)) and last.mean["auc"] > 0.75
    assert last.mean["log_loss"] == pytest.approx(log_loss(scorer.slope * scorer.logits(x) + scorer.level, y))
    assert last.mean["brier"] == pytest.approx(brier_score(p, y))
    templates = [row.template_id for row in validation]
    assert last.mean["ece_debiased"] == pytest.approx(debiased_calibration_error(p, y, templates))


def test_one_number_a_step_is_calibrated_and_keeps_its_order(
    rows: list[RouterRow], validation: list[RouterRow], tmp_path: Path
) -> None:
    flat = {point.name: point for point in curve(rows, validation, tmp_path)}["entropy_router"]
    entropy, y = np.array([row.features["entropy"] for row in validation]), labels(validation)
    assert flat.mean["auc"] == pytest.approx(auc(entropy, y))
    assert flat.mean["log_loss"] < log_loss(np.full(len(y), 0.0), y) < log_loss(entropy, y)
    names = [name for name in FEATURES if name != "logprob_chosen"]
    older = [row.model_copy(update={"features": {name: row.features[name] for name in names}}) for row in rows]
    points = learning_curve(older, validation, "mlp", replace(fitting(tmp_path), names=names), 1, str)
    assert [point.name for point in points] == ["mlp"] * 3 + ["entropy_router"]


def test_subsets_are_whole_templates_and_each_holds_the_smaller_one(
    rows: list[RouterRow], validation: list[RouterRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the six trainings of a subset the last is on all of it; spreads are between subsets."""
    learnt: list[set[str]] = []

    def recording(part: Sequence[RouterRow], made: Fitting) -> list[RouterNet]:
        learnt.append({row.template_id for row in part})
        assert len(part) == sum(row.template_id in learnt[-1] for row in rows)
        return mlp(part, made)

    monkeypatch.setitem(SCORERS, "mlp", recording)
    points = curve(rows, validation, tmp_path)
    first, second, larger, other, everything = learnt[5::6]
    assert [len(names) for names in (first, second, larger, other, everything)] == [10, 10, 20, 20, 24]
    assert first < larger < everything and second < other < everything and first != second
    assert points[0].spread["auc"] > 0 and points[0].steps < points[1].steps
    assert curve(rows, validation, tmp_path)[0] == points[0]


def test_a_subset_of_one_class_says_the_same_everywhere(
    rows: list[RouterRow], validation: list[RouterRow], tmp_path: Path
) -> None:
    failing = rows[0].template_id
    few = [row.model_copy(update={"label": float(row.template_id == failing)}) for row in rows]
    smallest = curve(few, validation, tmp_path, subsets=1)[0]
    assert smallest.mean["auc"] == 0.5, "seed 1 leaves the failing template out of the first ten"
    share = float(expit(np.log(1 / (smallest.steps + 1))))
    y = labels(validation)
    assert smallest.mean["brier"] == pytest.approx(float(np.mean((y - share) ** 2)), abs=1e-3)


@pytest.fixture
def project(
    rows: list[RouterRow], validation: list[RouterRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project with a finished run of router_features."""
    (tmp_path / "configs").mkdir()
    paths, router = "paths: {data: data, outputs: outputs, results: results}", "{scorer: mlp, epochs: 10}"
    (tmp_path / "configs" / "mrp.yaml").write_text(f"name: mrp\n{paths}\ntraining: {{router: {router}}}\n")
    listed = 'seeds: [1]\nexperiments: {"textworld:expert": {config: mrp.yaml}}\n'
    (tmp_path / "configs" / "experiments.yaml").write_text(listed)
    monkeypatch.setenv("R2V_PROJECT", str(tmp_path))
    folder = tmp_path / "data" / "runs" / "features_1"
    folder.mkdir(parents=True)
    write_records(folder / "features.jsonl", [*rows, *validation])
    manifest = RunManifest(
        run_id="features_1",
        stage="router_features",
        benchmark="textworld",
        provider="env",
        model="expert",
        seed=1,
        partition="textworld:expert|1",
        status="done",
        created_at="2026-01-01T00:00:00Z",
        output_dir="data/runs/features_1",
        artifacts={"features": "features.jsonl"},
    )
    write_manifest(manifest, folder)
    return tmp_path


def test_the_command_prints_the_table_and_writes_it_with_its_figure(project: Path) -> None:
    shell = CliRunner()
    done = shell.invoke(app, ["learning-curve", "--subsets", "2"])
    assert done.exit_code == 0, done.output
    folder = project / "results" / "learning_curve"
    table = pd.read_csv(folder / "seed1.csv")
    assert table["templates"].tolist() == [10, 20, 24, 24, 24]
    assert set(table.columns) == {"name", "templates", "steps", "subsets", *METRICS, *(f"{m}_sd" for m in METRICS)}
    assert (folder / "seed1.png").read_bytes().startswith(b"\x89PNG")
    assert f"{table['auc'][2]:.4f}".rstrip("0") in done.output and "entropy_router" in done.output
    run = project / "data" / "runs" / "features_1"
    named = shell.invoke(app, ["learning-curve", str(run), "--subsets", "2", "--output", str(project / "x"), "--json"])
    assert named.exit_code == 0, named.output
    found = json.loads(named.stdout)
    assert [row["auc"] for row in found] == pytest.approx(table["auc"].tolist(), abs=1e-6)
    assert found[2]["auc_sd"] is None and (project / "x" / "seed1.csv").exists()


def test_the_command_refuses_what_it_can_not_learn_from(project: Path) -> None:
    run = project / "data" / "runs" / "features_1"
    shell = CliRunner()

    def refusal(*arguments: str) -> str:
        return str(shell.invoke(app, ["learning-curve", *arguments]).exception)

    assert "no finished run of 'router_features' of 'textworld:expert|2'" in refusal(
        "--partition", "textworld:expert|2"
    )
    manifest = read_manifest(run)
    write_manifest(manifest.model_copy(update={"stage": "train_router"}), run)
    assert "is a run of 'train_router'; name one of 'router_features'" in refusal(str(run))
    write_manifest(manifest.model_copy(update={"status": "running"}), run)
    assert "is 'running', not done" in refusal(str(run))
    write_manifest(manifest, run)
    lines = (run / "features.jsonl").read_text().splitlines()
    few = [line for line in lines if json.loads(line)["template_id"] < "router-t17" or '"validation"' in line]
    (run / "features.jsonl").write_text("\n".join(few) + "\n")
    assert "router templates with labelled steps, the smallest subset has 10" in refusal()


def test_the_figure_has_a_line_of_means_and_flat_ones() -> None:
    table = pd.DataFrame(
        [("logistic", 10, 0.7, 0.05), ("logistic", 20, 0.8, np.nan), ("entropy_router", 20, 0.6, np.nan)],
        columns=["name", "templates", "value", "sd"],
    )
    values = {column: table[source] for m in METRICS for column, source in ((m, "value"), (f"{m}_sd", "sd"))}
    figure = learning_curve_figure(table[["name", "templates"]].assign(**values), "title")
    assert len(figure.axes) == len(PANELS) == len(METRICS)
    for axes in figure.axes:
        (container,) = axes.containers
        assert container.lines[0].get_ydata().tolist() == [0.7, 0.8]
        assert container.lines[2][0].get_segments()[0][:, 1] == pytest.approx([0.65, 0.75])
        flat = next(line for line in axes.lines if line.get_label() == "entropy_router, on all")
        assert list(flat.get_ydata()) == [0.6, 0.6]
