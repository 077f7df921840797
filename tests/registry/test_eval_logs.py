"""``r2v registry export-evals``: evaluations as logs, read back by inspect_ai itself in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.registry import DataRegistry
from r2v_core.trajectory import Decision, Observation, Perturbation, Step
from tests.registry.conftest import MakeRun, make_episode

READER = Path(__file__).parents[2] / ".venv-inspect" / "bin" / "python"
READ = """
import json, sys
from inspect_ai.log import list_eval_logs, read_eval_log
found = []
for info in list_eval_logs(sys.argv[1]):
    log = read_eval_log(info)
    found.append({
        "model": log.eval.model, "task": log.eval.task, "epochs": log.eval.config.epochs, "status": log.status,
        "accuracy": log.results.scores[0].metrics["accuracy"].value,
        "usage": log.stats.model_usage["teacher"].total_tokens,
        "samples": {f"{s.id}/{s.epoch}": [s.scores["verdict"].value, s.error.message if s.error else None,
                                          [(m.role, m.text) for m in s.messages]] for s in log.samples},
        "decision": log.samples[0].messages[2].metadata,
    })
print(json.dumps(found))
"""


@pytest.fixture
def evaluated(registry: DataRegistry, make_run: MakeRun) -> DataRegistry:
    """Two methods on two tasks in two worlds; one episode ended in an error."""
    noise = [Perturbation(family="tool_flakiness", operator="timeout")]
    decided = Decision(method="r2v", probability=0.7, threshold=0.5, escalate=True)
    first = Step(index=0, observation=Observation(state="room 0"), action="go", actor="teacher", cost=50.0,
                 tokens_in=90, tokens_out=10, perturbations=noise, decision=decided)  # fmt: skip
    second = Step(index=1, observation=Observation(state="room 1"), action="eat apple", actor="slm", cost=1.0)
    episodes = []
    for method in ("r2v", "llm_only"):
        for task in (0, 1):
            for z in (70, 30):
                told = {"method": method, "condition": "noisy", "split": "test", "replicate": 0}
                told |= {"error": "environment: it hung"} if (task, z) == (1, 30) else {}
                number = len(episodes)
                episodes.append(
                    make_episode("e", number, [], task_id=f"task-{task}", steps=[first, second], metadata=told,
                                 perturbation_seed=z, success=task == 0)
                )  # fmt: skip
    runs = [make_run("e", episodes=episodes, stage="evaluate_noisy"), make_run("c", [["go"]])]
    registry.register_all(runs)
    return registry


def export(registry: DataRegistry, folder: Path, *runs: str) -> Any:
    command = ["registry", "export-evals", *runs, "--output", str(folder), "--project", str(registry.project)]
    return CliRunner().invoke(app, [*command, "--json"])


def test_inspect_reads_what_was_evaluated(evaluated: DataRegistry, tmp_path: Path) -> None:
    done = export(evaluated, tmp_path / "logs", "e")
    assert done.exit_code == 0 and len(json.loads(done.stdout)["logs"]) == 2, done.output
    read = subprocess.run(
        [READER, "-c", READ, str(tmp_path / "logs")], capture_output=True, text=True, timeout=120, check=False
    )
    assert read.returncode == 0, read.stderr
    logs = {log["model"]: log for log in json.loads(read.stdout)}
    assert set(logs) == {"r2v/r2v", "r2v/llm_only"}
    log = logs["r2v/r2v"]
    told = [log[key] for key in ("task", "epochs", "status", "accuracy", "usage")]
    assert told == ["textworld-noisy", 2, "success", 0.5, 400]
    assert {place: found[:2] for place, found in log["samples"].items()} == {
        "task-0/1": ["C", None],
        "task-0/2": ["C", None],
        "task-1/1": ["I", "environment: it hung"],
        "task-1/2": ["I", None],
    }
    assert log["samples"]["task-0/1"][2][1:] == [
        ["user", "Goal: eat the apple\n\nroom 0"],
        ["assistant", "go"],
        ["user", "room 1"],
        ["assistant", "eat apple"],
    ]
    assert log["decision"] == {
        "actor": "teacher", "executed": True, "cost": 50.0, "probability": 0.7, "threshold": 0.5,
        "perturbations": ["tool_flakiness/timeout"],
    }  # fmt: skip


def test_other_runs_and_places_are_refused_in_a_line(evaluated: DataRegistry, tmp_path: Path) -> None:
    done = export(evaluated, tmp_path / "logs", "c")
    assert "run c is of the stage collect; logs are made of evaluations" in str(done.exception)
    (tmp_path / "file").write_text("")
    done = export(evaluated, tmp_path / "file", "e")
    assert f"--output {tmp_path / 'file'}: can't be written" in str(done.exception)
