from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.registry.cli import registry_app
from r2v_core.runs.manifest import read_manifest

from .conftest import MakeRun


@pytest.fixture
def filled(registry: DataRegistry, make_run: MakeRun) -> DataRegistry:
    registry.register_all(
        [
            make_run("a", [["x"], ["y"]], tags=["paper", "v1"], inputs=[("tasks", "t")]),
            make_run("b", [["x"]], created_at="2026-02-01T00:00:00Z"),
        ]
    )
    return registry


def run(registry: DataRegistry, *args: str) -> tuple[int, str]:
    result = CliRunner().invoke(registry_app, [*args, "--project", str(registry.project)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["summary"], "2 runs, 3 episodes (2 unique)"),
        (["show", "a"], "paper"),
        (["query", "--tag", "v1"], "1 runs"),
        (["query", "--where", "n_episodes = 1"], "1 runs"),
        (["sql", "SELECT count(*) AS n_all FROM episodes"], "n_all"),
        (["lineage", "a"], "└─ tasks: t (not registered)"),
        (["lineage", "a", "--format", "mermaid"], "flowchart TD"),
        (["doctor"], "registry and disk agree"),
        (["rebuild"], "2 runs, 3 episodes registered"),
    ],
)
def test_each_command_is_readable_and_speaks_json(filled: DataRegistry, command: list[str], words: str) -> None:
    code, text = run(filled, *command)
    assert code == 0
    assert words in text
    code, text = run(filled, *command, "--json")
    assert code == 0
    json.loads(text)


def test_sql_parameters_and_nulls(filled: DataRegistry) -> None:
    code, text = run(filled, "sql", "SELECT run_id, finished_at FROM runs WHERE run_id = ?", "--param", "b", "--json")
    assert (code, json.loads(text)) == (0, [{"run_id": "b", "finished_at": None}])


def test_merging(filled: DataRegistry, tmp_path: Path) -> None:
    output = tmp_path / "m.parquet"
    code, text = run(filled, "merge", "a", "b", "--output", str(output), "--json")
    assert (code, json.loads(text)["n_episodes"]) == (0, 2)
    assert output.exists()
    code, text = run(filled, "merge", "--where", "stage = 'collect'", "--as-run", "--tag", "t", "--json")
    runs = json.loads(text)["runs"]
    assert {run_id: (found["kept"], found["dropped"]) for run_id, found in runs.items()} == {"a": (2, 0), "b": (0, 1)}
    assert len(filled.query(stage="merge", tag="t")) == 1
    with pytest.raises(R2VError, match="where to"):
        run(filled, "merge", "a")


def test_syncing_finds_runs_made_by_hand(filled: DataRegistry, make_run: MakeRun) -> None:
    make_run("by-hand", [["q"]])
    code, text = run(filled, "sync", "--json")
    assert (code, json.loads(text)) == (0, {"registered": ["by-hand"], "problems": []})
    (make_run("broken") / "run_manifest.json").write_text("{")
    code, text = run(filled, "sync")
    assert (code, text) == (1, "0 runs\n")


def test_doctor_finds_and_marks(filled: DataRegistry, make_run: MakeRun) -> None:
    dead = make_run("dead", [["q"]], status="running")
    assert run(filled, "register", str(dead))[0] == 0
    code, text = run(filled, "doctor")
    assert code == 1
    assert "dead_run: data/runs/dead" in text
    code, text = run(filled, "doctor", "--mark-partial")
    assert (code, "marked partial: dead" in text) == (0, True)
    assert read_manifest(dead).status == "partial"
    assert filled.get_run("dead").status == "partial"


def test_importing_says_what_was_left_out(registry: DataRegistry, tmp_path: Path) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "trajectories.jsonl").write_text("{}\n")
    (tmp_path / "registry.json").write_text('{"runs": {"r": {"benchmark": "b"}}}')
    assert run(registry, "import", str(tmp_path))[0] == 1
    assert len(registry.query(benchmark="b")) == 1


def test_the_command_prints_one_line_and_exits_with_2(filled: DataRegistry) -> None:
    for args in (
        ["show", "nope"],
        ["sql", "SELEC"],
        ["sql", "DROP TABLE runs"],
        ["merge", "--where", "1=0", "--output", "x.jsonl"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "r2v_assets.cli", "registry", *args],
            capture_output=True, text=True, cwd=filled.project, check=False,
        )  # fmt: skip
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_heavy_libraries_are_not_imported() -> None:
    code = (
        "import sys, r2v_assets.cli, r2v_core.registry; "
        "sys.exit(bool({'torch', 'transformers', 'textworld', 'dagster'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_loads_duckdb_only_where_it_is_used() -> None:
    code = "import sys, r2v_assets.cli; print([m for m in ('duckdb', 'torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [("summary",), ("query",), ("show", "r"), ("sql", "FROM runs"), ("lineage", "r")])
def test_a_named_registry_that_does_not_exist_is_refused(
    registry: DataRegistry, tmp_path: Path, command: tuple[str, ...]
) -> None:
    missing = tmp_path / "nowhere.duckdb"
    with pytest.raises(R2VError, match=r"--registry .*nowhere\.duckdb: no such file"):
        run(registry, *command, "--registry", str(missing))
    assert not missing.exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["query", "--stage", "collects"], "--stage collects: no run has it. Did you mean 'collect'?"),
        (["query", "--benchmark", "textwrld"], "--benchmark textwrld: no run has it. Did you mean 'textworld'?"),
        (["query", "--status", "finished"], "--status finished: no run has it. Known: done, failed, partial, running"),
        (["query", "--seed", "77"], "--seed 77: no run has it. Known: "),
        (["sql", "SELECT * FROM run"], "Did you mean 'runs'?"),
        (["sql", "SELECT * FROM nothing_like_it"], "Known: artifacts, cost_by_model, episodes, evaluations,"),
        (["sql", "SELECT stagee FROM runs"], "Candidate bindings: "),
        (["sql", "SELEKT 1"], "bad SQL: Parser Error"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_there_is(
    filled: DataRegistry, command: list[str], words: str
) -> None:
    with pytest.raises(R2VError) as caught:
        run(filled, *command)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_status_that_no_run_has_is_no_mistake(filled: DataRegistry) -> None:
    assert run(filled, "query", "--status", "failed") == (0, "0 runs\n")


def test_notes_and_tags_can_not_write_to_the_terminal(
    registry: DataRegistry, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.register_all([make_run("evil", [["x"]], tags=["\x1b[2J"], notes="\x1b]0;owned\x07")])
    for command in (["show", "evil"], ["query"], ["sql", "SELECT * FROM runs"], ["query", "--json"]):
        code, text = run(registry, *command)
        assert code == 0 and "evil" in text and "\x1b" not in text and "\x07" not in text
