"""``r2v compare``: experiments and seeds side by side, from the registry, with what their reader has to know."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_assets.comparison import variant_comparison
from r2v_assets.materialize import failure_text
from r2v_assets.registry import RegistryResource
from r2v_core.config import LoadedConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.registry import DataRegistry
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.reporting import Reporter
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.plan import plan
from r2v_core.stages.runner import execute
from r2v_core.trajectory import Episode
from tests.results.finished import finished

Make = Callable[..., list[Episode]]
CONFIG = """
name: base
paths: {data: data/base, outputs: outputs/base, results: results/base, cache: data/cache}
evaluation: {bootstrap: 50}
"""
EXPERIMENTS = """
seeds: [1, 2, 3]
experiments:
  "textworld:expert": {config: base.yaml}
  "textworld:expert@k8": {config: k8.yaml}
  "textworld:expert@never": {config: base.yaml}
"""
PLAYED = {"tasks": 3, "zs": 2, "methods": ("r2v", "slm_only", "llm_only", "oracle_router")}
Made = dict[str, RunManifest]
BASE, K8 = "textworld:expert", "textworld:expert@k8"


class Project:
    """A project with result tables of two experiments at most, made by the real stages from made-up episodes."""

    def __init__(self, root: Path, make: Make) -> None:
        self.root, self.make, self.registry = root, make, DataRegistry(root)

    def config(self, experiment: str, seed: int, *overrides: str) -> LoadedConfig:
        return partition_config(Partition.parse(f"{experiment}|{seed}"), None, overrides, self.root)

    def evaluate(self, experiment: str, seed: int, *overrides: str, tasks: int = 3, **fields: Any) -> None:
        loaded = self.config(experiment, seed, *overrides)
        partition = Partition.parse(f"{experiment}|{seed}")
        for condition in ("clean", "noisy"):
            episodes = self.make(conditions=(condition,), seeds=(seed,), **(PLAYED | {"tasks": tasks}))
            stage = f"evaluate_{condition}"
            run_id = f"{stage}_{partition.variant or 'base'}_{seed}"
            finished(self.root, loaded, stage, partition, episodes, run_id=run_id, **fields)
        finished(self.root, loaded, "train_router", partition, [], run_id=f"router_{partition.variant}_{seed}")

    def tabulate(self, experiment: str, seed: int, *overrides: str) -> RunManifest:
        loaded, partition = self.config(experiment, seed, *overrides), Partition.parse(f"{experiment}|{seed}")
        manifest = execute(plan("result_tables", partition, loaded, project=self.root), Reporter("result_tables"))
        self.registry.sync()
        return manifest

    def main_table(self, manifest: RunManifest, seed: int | str) -> pd.DataFrame:
        table = pd.read_csv(self.root / manifest.output_dir / manifest.artifacts["main_table"], dtype={"seed": str})
        return table[table["seed"] == str(seed)].set_index(["condition", "method"])


def make_project(root: Path, make: Make, patch: pytest.MonkeyPatch) -> Project:
    (root / "configs").mkdir()
    for name, text in (
        ("base", CONFIG),
        ("k8", "defaults: [base]\nname: k8\ncandidates: {k: 8}\n"),
        ("experiments", EXPERIMENTS),
    ):
        (root / "configs" / f"{name}.yaml").write_text(text)
    patch.setenv("R2V_PROJECT", str(root))
    patch.setattr("r2v_core.stages.result_tables.save_figures", lambda *args: args[-1].mkdir() or {})
    return Project(root, make)


@pytest.fixture
def project(tmp_path: Path, make_episodes: Make, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, make_episodes, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_episodes: Make) -> Iterator[tuple[Project, Made]]:
    """One seed of an experiment, two of its variant, the second one on more tasks; and their result tables."""
    with pytest.MonkeyPatch.context() as patch:
        project = make_project(tmp_path_factory.mktemp("compared"), make_episodes, patch)
        project.evaluate(BASE, 1, code_version="4", git_commit="a" * 40)
        project.evaluate(K8, 1, code_version="5", git_commit="b" * 40)
        project.evaluate(K8, 2, tasks=5, code_version="5", git_commit="b" * 40)
        yield project, {BASE: project.tabulate(BASE, 1), K8: project.tabulate(K8, 2)}


def r2v(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["compare", *arguments])
    if isinstance(result.exception, R2VError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_each_column_group_repeats_the_main_table(made: tuple[Project, Made], tmp_path: Path) -> None:
    project, tables = made
    r2v(BASE, K8, "--output", str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index(["condition", "method"])
    assert list(table.loc["noisy"].index) == list(PLAYED["methods"])  # the order of the routing rules
    for experiment, seed in ((BASE, 1), (K8, "all")):
        main = project.main_table(tables[experiment], seed)
        for name in ("success_rate", "success_rate_ci", "avg_cost", "llm_call_rate", "n_episodes"):
            pd.testing.assert_series_equal(table[f"{experiment} {name}"], main[name][table.index], check_names=False)


def test_the_markdown_table_has_a_row_a_method_and_notes_beneath(made: tuple[Project, Made]) -> None:
    project, tables = made
    lines = r2v(BASE, K8, "--condition", "noisy", "--seeds", "1").stdout.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["noisy", BASE, "", "", K8, "", ""]
    assert [line.split("|")[1].strip() for line in lines[3:7]] == list(PLAYED["methods"])
    row = project.main_table(tables[BASE], 1).loc[("noisy", "r2v")]
    low, high = (100 * float(bound) for bound in row["success_rate_ci"].strip("[]").split(","))
    shown = [cell.strip() for cell in lines[3].split("|")[2:5]]
    expected = f"{row['success_rate']:.1%} [{low:.1f}, {high:.1f}]"
    assert shown == [expected, f"{row['avg_cost']:.1f}", f"{row['llm_call_rate']:.1%}"]
    assert lines[8:] == [
        f"- The columns differ in version of the evaluation's code ({BASE}: 4; {K8}: 5).",
        f"- The columns differ in commit ({BASE}: {'a' * 12}; {K8}: {'b' * 12}).",
        f"- The columns differ in candidates.k ({BASE}: 4; {K8}: 8).",
    ]


def test_other_tasks_and_seeds_are_said_first(made: tuple[Project, Made]) -> None:
    result = json.loads(r2v(BASE, K8, "--json").stdout)
    assert result["missing"] == [] and len(result["rows"]) == 2 * len(PLAYED["methods"])
    assert result["notes"][0].startswith(
        f"The columns were played on different test tasks ({BASE}: 3; {K8}: 8; 3 in all columns)"
    )
    assert result["notes"][1] == f"The columns differ in partition seeds ({BASE}: 1; {K8}: 1, 2)."


def test_seeds_side_by_side_and_a_choice_of_them(made: tuple[Project, Made]) -> None:
    project, tables = made
    found = json.loads(r2v(K8, "--by", "seed", "--json").stdout)
    rows, notes = found["rows"], found["notes"]
    assert len(notes) == 1 and "different test tasks (seed 1: 3; seed 2: 5; 0 in all columns)" in notes[0]
    for title, seed in (("seed 1", 1), ("seed 2", 2), ("all seeds", "all")):
        main = project.main_table(tables[K8], seed)
        for row in rows:
            expected = main.loc[(row["condition"], row["method"])]
            assert row[f"{title} success_rate"] == expected["success_rate"]
            assert row[f"{title} success_rate_ci"] == expected["success_rate_ci"]
    second = json.loads(r2v(K8, "--seeds", "2", "--json").stdout)["rows"]
    assert [row[f"{K8} success_rate"] for row in second] == [row["seed 2 success_rate"] for row in rows]
    with pytest.raises(R2VError, match=r"--seeds 1;2: write numbers with commas"):
        r2v(BASE, "--seeds", "1;2")


def test_what_is_missing_comes_with_its_command(project: Project) -> None:
    project.evaluate(BASE, 1)
    project.tabulate(BASE, 1)
    project.evaluate(K8, 2)
    project.registry.sync()
    text = r2v("textworld", "--seeds", "1,2", status=1).stdout  # a benchmark: all its experiments
    tables = "dagster asset materialize -m r2v_assets.definitions --select result_tables --partition"
    assert f"- missing: {BASE} has no seed 2 in its result tables; make them: r2v demo --partition '{BASE}|2'" in text
    assert f"- missing: {K8} has no finished result tables; make them: r2v demo --partition '{K8}|1'" in text
    assert f"- missing: {BASE}@never has no finished result tables; make them: r2v demo" in text
    with pytest.raises(R2VError, match=re.escape(f"nothing to compare: {K8} has no finished result tables; make "
                                                 f"them: {tables} '{K8}|2'")):  # fmt: skip
        r2v(K8)


def test_seeds_evaluated_since_are_named_but_not_those_of_ablations(project: Project) -> None:
    project.evaluate(BASE, 1)
    project.tabulate(BASE, 1)
    folder = project.root / "outputs/base"
    shutil.copytree(folder / "evaluate_noisy", folder / "ablations/evaluate_noisy")
    (path,) = (folder / "ablations/evaluate_noisy").glob("*/run_manifest.json")
    fields = json.loads(path.read_text())
    later = {"run_id": "by_ablation", "finished_at": "2999-01-01T00:00:00+00:00", "output_dir": str(path.parent)}
    path.write_text(json.dumps(fields | later))
    project.registry.sync()
    assert json.loads(r2v(BASE, "--json").stdout)["notes"] == []
    project.evaluate(BASE, 2)
    project.registry.sync()
    (note,) = json.loads(r2v(BASE, "--json").stdout)["notes"]
    assert note.startswith(f"{BASE}: seed 2 was evaluated after these tables were made; make them: dagster asset")


def test_tables_of_another_world_take_no_ones_place(project: Project) -> None:
    project.evaluate(BASE, 1)
    kept = project.tabulate(BASE, 1)
    folder = project.root / "outputs/base"
    for stage in ("evaluate_clean", "evaluate_noisy", "train_router"):
        shutil.rmtree(folder / stage)
    project.evaluate(BASE, 1, "benchmark.max_steps=5", tasks=2)
    other = project.tabulate(BASE, 1, "benchmark.max_steps=5")
    found = json.loads(r2v(BASE, "--json").stdout)
    assert found["rows"][0][f"{BASE} n_episodes"] == project.main_table(kept, 1).iloc[0]["n_episodes"] == 3
    shutil.rmtree(project.root / kept.output_dir)
    project.registry.rebuild()
    found = json.loads(r2v(BASE, "--json").stdout)
    assert found["rows"][0][f"{BASE} n_episodes"] == 2
    (note,) = found["notes"]
    assert other.run_id in note and "made with benchmark.max_steps = 5" in note


def test_tables_whose_files_are_gone_are_missing(project: Project) -> None:
    project.evaluate(BASE, 1)
    shutil.rmtree(project.root / project.tabulate(BASE, 1).output_dir / "structured_results")
    with pytest.raises(R2VError, match=rf"nothing to compare: {BASE}: .*no run bundles.*--select result_tables"):
        r2v(BASE)


def test_an_unknown_variant_is_refused_with_the_nearest_one(made: tuple[Project, Made]) -> None:
    with pytest.raises(R2VError, match=r"unknown experiment 'textworld:expert@k9'.*Did you mean 'textworld:expert@k8'"):
        r2v(BASE, "textworld:expert@k9")


def test_a_folder_that_cannot_be_written_is_one_line(made: tuple[Project, Made], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(R2VError, match=r"file/below: can't write there \(Not a directory\)"):
        r2v(BASE, "--output", str(tmp_path / "file" / "below"))


def test_nothing_is_written(made: tuple[Project, Made]) -> None:
    project, _ = made
    before = {path: path.stat().st_mtime_ns for path in project.root.rglob("*")}
    r2v(BASE, K8)
    assert {path: path.stat().st_mtime_ns for path in project.root.rglob("*")} == before


def test_the_latex_form_compiles(made: tuple[Project, Made], tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = r2v(BASE, K8, "--format", "latex", "--output", str(out))
    text = (out / "comparison.tex").read_text()
    assert printed.stdout == text and f"wrote {out / 'comparison.tex'}" in printed.stderr
    assert text.count(r"\cmidrule") == 2 and rf"\multicolumn{{3}}{{c}}{{{K8}}}" in text
    assert "different test tasks" in text
    body = text.split(r"\emph{noisy}")[1].split(r"\bottomrule")[0].splitlines()[1:]
    assert len(body) == 2 * len(PLAYED["methods"]) and all(line.count("&") == 6 for line in body)
    assert not any("textbf" in line for line in body if line.startswith("oracle"))
    pdflatex = shutil.which("pdflatex")
    assert pdflatex, "no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended"
    done = subprocess.run([pdflatex, "-interaction=nonstopmode", "-halt-on-error", "comparison_standalone.tex"],
                          cwd=out, capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Overfull" not in done.stdout, "the table is wider than the page"


def test_the_queries_of_the_documentation_give_the_same_numbers(made: tuple[Project, Made]) -> None:
    project, _ = made
    page = (Path(__file__).parents[2] / "docs/how-to/compare.md").read_text(encoding="utf-8")
    beside, seeds, configs = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    rows = json.loads(r2v(BASE, K8, "--condition", "noisy", "--json").stdout)["rows"]
    by_sql = project.registry.sql(beside).set_index(["method", "experiment"])["success"]
    assert len(by_sql) == 2 * len(rows)
    for row in rows:
        for experiment in (BASE, K8):
            assert by_sql[row["method"], experiment] == round(row[f"{experiment} success_rate"], 3)
    (of_seed,) = json.loads(r2v(K8, "--by", "seed", "--condition", "noisy", "--json").stdout)["rows"][:1]
    found = project.registry.sql(seeds.replace("textworld:expert|", f"{K8}|")).set_index("method").loc["r2v"]
    assert list(found["by_seed"]) == [round(of_seed[f"seed {seed} success_rate"], 3) for seed in (1, 2)]
    assert list(project.registry.sql(configs)["k"]) == ["4", "8", "8"]


def materialize(**config: Any) -> dg.ExecuteInProcessResult:
    given = {"ops": {"variant_comparison": {"config": config}}} if config else {}
    resources = {"registry": RegistryResource()}
    return dg.materialize([variant_comparison], run_config=given, resources=resources, raise_on_error=False)


def test_the_asset_shows_a_table_a_benchmark_and_only_reads_the_registry(made: tuple[Project, Made]) -> None:
    project, tables = made
    before = project.registry.path.read_bytes()
    result = materialize()
    assert result.success and project.registry.path.read_bytes() == before
    (event,) = result.asset_materializations_for_node("variant_comparison")
    assert event.metadata["table/textworld"].value == r2v("textworld", status=1).stdout
    sources = {experiment: manifest.run_id for experiment, manifest in tables.items()}
    assert event.metadata["sources/textworld"].value == sources
    assert f"{BASE}@never has no finished result tables" in str(event.metadata["missing"].value)
    folder = project.root / "results/comparison/textworld"
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".md", ".tex"}


def test_the_asset_has_no_key_that_cannot_run(project: Project) -> None:
    assert variant_comparison.partitions_def is None
    result = materialize()  # nothing has been evaluated yet
    assert result.success
    (event,) = result.asset_materializations_for_node("variant_comparison")
    assert str(event.metadata["missing"].value).count("r2v demo --partition") == 3
    failed = materialize(experiments=["textworld:expart"])
    (failure,) = failed.get_step_failure_events()
    assert "Did you mean 'textworld:expert'?" in failure_text(failure)
