"""A run id is the name of a folder, and of no other place."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.runs.directories import check_run_id
from tests.stages.conftest import Stage

BAD = [
    "",
    ".",
    "..",
    "../..",
    "a/b",
    "/tmp/x",
    "a\nb",
    "a b",
    "-x",
    ".hidden",
    "a" * 300,
    "ü" * 150,
    "a\0b",
    "a\\b",
    "x\u202e",
]


@pytest.mark.parametrize("run_id", BAD)
def test_what_is_no_name_is_refused_in_one_line(run_id: str) -> None:
    with pytest.raises(R2VError) as caught:
        check_run_id(run_id)
    assert "a run id names a folder" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "run_id", ["try", "textworld_env_expert_20260131T120000-2", "humaneval_ollama_llama3:8b_1", "ü"]
)
def test_names_pass(run_id: str) -> None:
    check_run_id(run_id)


def test_nothing_is_written_for_a_bad_one(project: Path, stage: Stage) -> None:
    before = sorted(project.rglob("*"))
    done = stage("task_suite", "--run-id", "../..", check=False)
    assert done.returncode == 2 and "error: --run-id '../..'" in done.stderr
    assert sorted(project.rglob("*")) == before
