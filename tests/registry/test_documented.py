"""The queries and calls that the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r2v_core.registry import DataRegistry

from .conftest import MakeRun, make_episode

DOCS = Path(__file__).parents[2] / "docs"
QUERIES = re.findall(r"```sql\n(.*?)```", (DOCS / "sql-cookbook.md").read_text(encoding="utf-8"), re.DOTALL)
PAGE = (DOCS / "how-to/registry.md").read_text(encoding="utf-8")


@pytest.fixture
def filled(registry: DataRegistry, make_run: MakeRun) -> DataRegistry:
    evaluated = make_episode("eval", 0, ["x"])
    evaluated = evaluated.model_copy(update={"metadata": evaluated.metadata | {"method": "r2v"}})
    registry.register_all(
        [
            make_run("a", [["x"], ["y"]], tags=["paper"]),
            make_run("bc", stage="train_bc", root="outputs/train_bc", inputs=[("trajectories", "a")]),
            make_run("eval", episodes=[evaluated], stage="evaluate_noisy", root="outputs/evaluate_noisy"),
        ]
    )
    return registry


def test_there_are_ten() -> None:
    assert len(QUERIES) == 10


@pytest.mark.parametrize("number", range(1, 11))
def test_each_query_runs(filled: DataRegistry, number: int) -> None:
    frame = filled.sql(QUERIES[number - 1])
    assert len(frame.columns) >= 3
    if number in (1, 3, 4, 6):
        assert len(frame) >= 1


def test_the_python_example_runs(filled: DataRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(filled.project)
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "DataRegistry" in block)
    names: dict[str, object] = {}
    exec(code, names)  # the project's own page
    assert (filled.project / "merged.parquet").exists()
