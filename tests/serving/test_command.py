"""What ``r2v serve`` refuses, before it loads a model. That it serves: tests/assets/test_pipeline.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r2v_assets.cli import app
from r2v_core.errors import R2VError
from tests.serving.conftest import CONFIG


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["textworld:expert|1"],
            "teacher 'expert' lives in the benchmark's environment.*local, trained, openai",
        ),
        (["textworld:expert|1", "--teacher", "gpt4o"], "Unknown teacher 'gpt4o'"),
        (["textworld:mine|1", "--teacher", "gpt-4o"], r"teacher 'gpt-4o' costs money.*teacher\.limits\.budget_usd"),
        (["textworld:smollm2|1"], r"'r2v serve' needs 'dpo_policy' of partition 'textworld:smollm2\|1'.*Make it first"),
        (["textworld:mine"], "not a partition key"),
        (["textworld:mine|1", "--host", "0.0.0.0"], "--host 0.0.0.0: .*set R2V_SERVE_KEY"),
        (["textworld:mine|1", "--host", "no.such.host.invalid"], "set R2V_SERVE_KEY"),
        (["textworld:mine|1", "--teacher-option", "temperature"], "--teacher-option temperature: write KEY=VALUE"),
        (
            ["textworld:mine|1", "--teacher", "smollm2", "--teacher-option", "max_token=3"],
            r"teacher\.options\.max_token \(provider local\)",
        ),
    ],
)
def test_what_can_not_be_served_is_said_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("R2V_PROJECT", str(project))
    monkeypatch.delenv("R2V_SERVE_KEY", raising=False)
    command = ["serve", *arguments, "--config", str(project / CONFIG), "--port", "0"]
    with pytest.raises(R2VError, match=message):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (project / "outputs/serve").exists()


def test_a_port_in_use_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2V_PROJECT", str(project))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(R2VError, match=f"--port {port}: Address already in use"):
            command = ["serve", "textworld:mine|1", "--config", str(project / CONFIG), "--port", port]
            CliRunner().invoke(app, command, catch_exceptions=False)
