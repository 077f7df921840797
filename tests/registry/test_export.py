"""``r2v registry export``: trajectories as chats that other trainers load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.benchmarks import benchmark_class
from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.trajectory import Observation, Step
from tests.registry.conftest import MakeRun, make_episode

FORMATS = ("messages", "sharegpt", "prompt-completion")


def step(index: int, action: str, actor: Any = "teacher", **more: Any) -> Step:
    return Step(index=index, observation=Observation(state=f"room {index}"), action=action, actor=actor, **more)


@pytest.fixture
def run(registry: DataRegistry, make_run: MakeRun) -> str:
    """A success with an explored step, a failure, its equal, an error, one that teaches nothing, and one held out."""
    mixed = [step(0, "go"), step(1, "wait", "explore", expert_action="take apple"), step(2, "eat apple")]
    odd = [step(0, "?", malformed="no action"), step(1, "look", "slm")]
    error = {"metadata": {"split": "train", "error": "teacher: refused"}}
    episodes = [
        make_episode("r", 0, [], steps=mixed),
        make_episode("r", 1, ["sleep"]),
        make_episode("r", 3, ["sleep"]),
        make_episode("r", 4, ["go"], **error),
        make_episode("r", 6, [], steps=odd),
        make_episode("r", 8, ["go"], metadata={"split": "test"}),
    ]
    registry.register_all([make_run("r", episodes=episodes)])
    return "r"


def exported(registry: DataRegistry, output: Path, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    command = ["registry", "export", *arguments, "--output", str(output), "--project", str(registry.project), "--json"]
    done = CliRunner().invoke(app, command)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in output.read_text().splitlines()], json.loads(done.stdout)


def test_an_episode_is_a_chat_that_teaches_what_behaviour_cloning_learns(
    registry: DataRegistry, run: str, tmp_path: Path
) -> None:
    (first, second), counts = exported(registry, tmp_path / "new" / "chats.jsonl", run)
    assert first["messages"] == [
        {"role": "system", "content": benchmark_class("textworld").instructions},
        {"role": "user", "content": "Goal: eat the apple\n\nroom 0"},
        {"role": "assistant", "content": "go", "weight": 1},
        {"role": "user", "content": "room 1"},
        {"role": "assistant", "content": "wait", "weight": 0},
        {"role": "user", "content": "room 2"},
        {"role": "assistant", "content": "eat apple", "weight": 1},
    ]
    assert first["id"] == "r/e0/0" and first["metadata"]["success"] and first["metadata"]["task_id"] == "task-0"
    assert second["messages"][-1]["content"] == "sleep" and not second["metadata"]["success"]
    assert counts | {"output": ""} == {
        "output": "", "records": 2, "episodes": 3, "failed": 0, "errors": 1, "untaught": 1, "equal": 1
    }  # fmt: skip
    (only,), counts = exported(registry, tmp_path / "chats.jsonl", "--where", "stage = 'collect'", "--successful")
    assert only == first and counts["failed"] == 2


def test_a_taught_step_is_a_prompt_and_a_completion(registry: DataRegistry, run: str, tmp_path: Path) -> None:
    rows, _ = exported(registry, tmp_path / "steps.jsonl", run, "--format", "prompt-completion", "--successful")
    assert [row["completion"][0]["content"] for row in rows] == ["go", "take apple", "eat apple"]
    assert [message["role"] for message in rows[2]["prompt"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert rows[2]["prompt"][4]["content"] == "wait", "what was played, not what should have been"


def test_sharegpt_is_the_same_chat(registry: DataRegistry, run: str, tmp_path: Path) -> None:
    chats, _ = exported(registry, tmp_path / "chats.jsonl", run)
    rows, _ = exported(registry, tmp_path / "sharegpt.jsonl", run, "--format", "sharegpt")
    names = {"system": "system", "human": "user", "gpt": "assistant"}
    for row, chat_ in zip(rows, chats, strict=True):
        back = [{"role": names[one["from"]], "content": one["value"]} for one in row["conversations"]]
        assert back == [{"role": one["role"], "content": one["content"]} for one in chat_["messages"]]


@pytest.mark.parametrize("form", FORMATS)
def test_trl_takes_it_for_a_conversation(registry: DataRegistry, run: str, tmp_path: Path, form: str) -> None:
    from datasets import load_dataset
    from trl.data_utils import is_conversational, maybe_convert_to_chatml

    rows, _ = exported(registry, tmp_path / "out.jsonl", run, "--format", form)
    loaded = load_dataset("json", data_files=str(tmp_path / "out.jsonl"), split="train", cache_dir=str(tmp_path / "c"))
    assert len(loaded) == len(rows) and is_conversational(maybe_convert_to_chatml(loaded[0]))


def test_what_can_not_be_exported_is_said_in_a_line(registry: DataRegistry, run: str, tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    file.write_text("mine\n")
    wrong = {
        (run, "--where", "true"): "run ids, or --where",
        ("--where", "stage = 'nothing'"): "no run meets it",
        (run, "--split", "test", "--successful", "--stage", "perturb"): "nothing to merge",
        ("nobody",): "nobody",
    }
    for arguments, words in wrong.items():
        with pytest.raises(R2VError, match=words):
            exported(registry, file, *arguments)
    with pytest.raises(R2VError, match=r"has to end in \.jsonl"):
        exported(registry, tmp_path / "chats.json", run)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(R2VError, match=r"can't be written"):
        exported(registry, blocked / "chats.jsonl", run)
    assert file.read_text() == "mine\n" and not list(tmp_path.glob(".*.tmp"))


def test_nothing_that_teaches_writes_nothing(registry: DataRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    registry.register_all([make_run("only", episodes=[make_episode("only", 1, [], steps=[step(0, "x", "slm")])])])
    with pytest.raises(R2VError, match=r"no episode teaches anything \(1 untaught\)"):
        exported(registry, tmp_path / "chats.jsonl", "only")
    assert not (tmp_path / "chats.jsonl").exists()
