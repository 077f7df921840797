from __future__ import annotations

import time
from datetime import date

import pytest

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry

from .conftest import MakeRun


@pytest.fixture
def filled(registry: DataRegistry, make_run: MakeRun) -> DataRegistry:
    registry.register_all(
        [
            make_run("tasks", stage="task_suite"),
            make_run("old", [["x"], ["y"]], inputs=[("tasks", "tasks")], tags=["paper", "v1"]),
            make_run("new", [["x"]], inputs=[("tasks", "tasks")], created_at="2026-02-01T00:00:00+00:00", seed=2),
            make_run("other", [["x"]], model="gpt", provider="openai", created_at="2026-03-01T00:00:00+00:00"),
            make_run("broken", [["x"]], status="failed", created_at="2026-04-01T00:00:00+00:00"),
            make_run("bc", stage="train_bc", inputs=[("trajectories", "old")], created_at="2026-04-02T00:00:00Z"),
        ]
    )
    return registry


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["bc", "broken", "other", "new", "tasks", "old"]),
        ({"stage": "collect", "status": "done"}, ["other", "new", "old"]),
        ({"model": "expert", "seed": 2}, ["new"]),
        ({"provider": "openai", "benchmark": "textworld"}, ["other"]),
        ({"tag": "v1"}, ["old"]),
        ({"tag": "v"}, []),
        ({"since": "2026-03-01"}, ["bc", "broken", "other"]),
        ({"since": date(2026, 4, 2)}, ["bc"]),
        ({"since": "2026-02-01T01:00:00+02:00", "status": "done"}, ["bc", "other", "new"]),
        ({"where": "list_contains(tags, 'paper') OR n_episodes = 0 -- note"}, ["bc", "tasks", "old"]),
    ],
)
def test_query(filled: DataRegistry, conditions: dict, expected: list[str]) -> None:
    found = filled.query(**conditions)
    assert [run.run_id for run in found] == expected
    assert len(found) == len(expected)


def test_rows_answer_to_their_old_names(filled: DataRegistry) -> None:
    run = filled.query(tag="v1")[0]
    assert (run.run_id, run.n_episodes, run.success_rate, run.output_dir) == ("old", 2, 0.5, "data/runs/old")
    assert filled.query()[-1].run_id == "old"
    assert [run.run_id for run in filled.query()[1:3]] == ["broken", "other"]
    with pytest.raises(IndexError):
        filled.query(tag="v1")[1]


def test_latest_run(filled: DataRegistry) -> None:
    found = filled.latest_run("textworld", "expert")
    assert found is not None and found.run_id == "new"
    assert filled.latest_run("textworld", "nobody") is None
    bc = filled.latest_run(stage="train_bc")
    assert bc is not None and bc.inputs[0].run_id == "old"


def test_an_absent_registry_is_empty_and_is_not_made_by_reading(registry: DataRegistry) -> None:
    assert registry.summary()["runs"] == 0
    assert registry.latest_run("textworld", "expert") is None
    assert registry.sql("FROM run_lineage").empty
    assert not registry.path.exists()


def test_summary(filled: DataRegistry) -> None:
    summary = filled.summary()
    assert (summary["runs"], summary["episodes"], summary["unique_episodes"]) == (6, 5, 2)
    assert sum(group["runs"] for group in summary["groups"]) == 6


@pytest.mark.parametrize("where", ["", "nope = 1", "1 = 1; DROP TABLE runs", "selec", "seed = 'x'"])
def test_a_bad_condition_is_one_clear_line(filled: DataRegistry, where: str) -> None:
    with pytest.raises(R2VError) as caught:
        filled.query(where=where)
    assert "\n" not in str(caught.value)
    assert len(filled.query()) == 6


def test_unknown_run(filled: DataRegistry) -> None:
    with pytest.raises(R2VError, match="Did you mean 'broken'"):
        filled.get_run("brokn")
    with pytest.raises(R2VError, match="no run 'zzz'"):
        filled.lineage("zzz")
    with pytest.raises(R2VError, match="not a time"):
        filled.query(since="last week")


def test_sql_answers_with_parameters(filled: DataRegistry) -> None:
    assert filled.sql("SELECT run_id FROM runs WHERE seed = ?", [2])["run_id"].tolist() == ["new"]
    assert filled.sql("SELECT run_id FROM runs WHERE seed = $s", {"s": 2})["run_id"].tolist() == ["new"]
    for reading in ("DESCRIBE runs", "SHOW TABLES", "SUMMARIZE runs", "EXPLAIN SELECT 1", "FROM latest_runs"):
        assert len(filled.sql(reading))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM runs",
        "WITH x AS (DELETE FROM runs RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE DELETE FROM runs",
        "COPY runs TO 'stolen.csv'",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "ATTACH 'other.duckdb'",
        "CREATE TABLE memory.x (i INT)",
        "INSTALL httpfs",
        "EXPORT DATABASE 'there'",
        "SET enable_external_access = true",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM filled",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "SELECT nope FROM runs",
        "SELECT ? FROM runs",
        "SELECT 'x'::INT",
        "",
    ],
)
def test_sql_refuses_in_one_line(filled: DataRegistry, statement: str) -> None:
    with pytest.raises(R2VError) as caught:
        filled.sql(statement)
    assert "\n" not in str(caught.value)
    assert len(filled.query()) == 6


def test_views(filled: DataRegistry) -> None:
    assert set(filled.sql("FROM latest_runs")["run_id"]) == {"tasks", "new", "other", "bc"}
    success = filled.sql("FROM success_by_model WHERE stage = 'collect' AND model = 'expert'").to_dict("records")[0]
    assert (success["n_runs"], success["n_episodes"], success["success_rate"]) == (2, 3, 0.6667)
    cost = filled.sql("FROM cost_by_model WHERE model = 'gpt'").to_dict("records")[0]
    assert (cost["cost"], cost["cost_per_success"]) == (50.0, 50.0)
    trained = filled.sql("FROM training_sets").to_dict("records")
    assert [(row["training_run_id"], row["data_run_id"], row["depth"]) for row in trained] == [("bc", "old", 1)]
    up = filled.sql("FROM run_lineage WHERE run_id = 'bc' AND direction = 'up' ORDER BY depth")
    assert list(zip(up["related_run_id"], up["depth"], strict=True)) == [("old", 1), ("tasks", 2)]
    down = filled.sql("FROM run_lineage WHERE run_id = 'tasks' AND direction = 'down'")
    assert set(down["related_run_id"]) == {"old", "new", "bc"}


def test_lineage_graph(filled: DataRegistry) -> None:
    up = filled.lineage("bc")
    assert [(e.run_id, e.role, e.upstream_run_id) for e in up.edges] == [
        ("bc", "trajectories", "old"),
        ("old", "tasks", "tasks"),
    ]
    both = filled.lineage("old", "both")
    assert set(both.nodes) == {"old", "tasks", "bc"}
    tree = both.to_tree().splitlines()
    assert tree[1:3] == ["reads", "└─ tasks: tasks (task_suite, done)"]
    assert tree[3:] == ["is read by", "└─ trajectories: bc (train_bc, done)"]
    assert '-- "trajectories" -->' in both.to_mermaid()
    with pytest.raises(R2VError, match="sideways"):
        filled.lineage("old", "sideways")  # type: ignore[arg-type]


def test_a_circle_in_the_lineage_ends(registry: DataRegistry, make_run: MakeRun) -> None:
    registry.register_all([make_run("a", inputs=[("x", "b")]), make_run("b", inputs=[("x", "a")])])
    assert set(registry.lineage("a", "both").nodes) == {"a", "b"}
    assert "b" in registry.lineage("a").to_tree()
    assert len(registry.sql("FROM run_lineage")) == 4


def test_ten_thousand_runs_are_queried_quickly(registry: DataRegistry, make_run: MakeRun) -> None:
    from r2v_core.registry.database import write

    registry.register(make_run("a", [["x"]], tags=["t"]))
    with write(registry.path) as con:
        con.execute("INSERT INTO runs SELECT runs.* REPLACE ('r' || i AS run_id) FROM runs, range(10000) AS r(i)")
    registry.query()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        found = registry.query(benchmark="textworld", tag="t", status="done")
        times.append(time.perf_counter() - began)
    assert len(found) == 10_001
    assert min(times) < 0.1  # the benchmark says how fast it is; this says that it does not become slow
