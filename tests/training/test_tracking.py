"""Where curves go: TensorBoard files while training runs, and W&B as its users know it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from r2v_core.config.schema import TrainingConfig
from r2v_core.errors import R2VError
from r2v_core.runs.spec import StageContext
from r2v_core.stages import train_bc as stage
from r2v_core.training import callbacks
from r2v_core.training.checkpoints import read_log
from r2v_core.training.tracking import TENSORBOARD, Wandb, wandb_settings

QUICK = {"max_steps": 4, "batch_size": 2, "save_steps": 2}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home without a login and an environment that says nothing about W&B."""
    for name in ("MODE", "PROJECT", "ENTITY", "API_KEY", "BASE_URL", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def settings(**training: Any) -> Wandb:
    return wandb_settings(TrainingConfig.model_validate(training))


def test_the_config_says_mode_project_and_entity() -> None:
    assert settings() == Wandb("disabled", "r2v", None)
    assert settings(wandb="offline", wandb_project="p", wandb_entity="e") == Wandb("offline", "p", "e")


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MODE", "offline"), ("PROJECT", "mine"), ("ENTITY", "lab")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert settings(wandb_project="p", wandb_entity="e") == Wandb("offline", "mine", "lab")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert settings(wandb="online").mode == "disabled"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert settings().mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(R2VError, match=r"WANDB_MODE=ofline: .* Did you mean 'offline'\?"):
        settings()


def test_online_needs_a_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(R2VError, match=r"training.wandb: online needs a login; run 'wandb login'"):
        settings(wandb="online")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert settings(wandb="online").mode == "online"


def test_what_wandb_login_writes_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wandb.sdk.lib.wbauth import write_netrc_auth

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    write_netrc_auth(host="https://api.wandb.ai", api_key="a" * 40)
    monkeypatch.delenv("NETRC")
    assert settings(wandb="online").mode == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(R2VError, match="WANDB_BASE_URL"):
        settings(wandb="online")


def test_wandb_gets_project_and_entity(context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    asked: list[dict[str, Any]] = []
    original = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **kwargs: asked.append(kwargs) or original(**kwargs))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    ctx = context("train_bc", bc={**QUICK, "max_steps": 1}, wandb_entity="lab")
    stage.run(ctx)
    assert [(each["mode"], each["project"], each["entity"]) for each in asked] == [("offline", "mine", "lab")]
    assert list((ctx.run_dir / "wandb").glob("offline-run-*/*.wandb")), "what wandb sync uploads"


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_curves_are_on_disk_while_training_runs_and_go_on_after_a_kill(
    context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context("train_bc", bc=QUICK)
    original = callbacks.TensorBoardScalars.on_log

    def look_and_stop(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        original(self, args, state, control, logs, **rest)
        if state.global_step == 3:
            self._writer.flush()
            assert [step for step, _ in events(ctx.run_dir / TENSORBOARD)["loss"]] == [1, 2, 3]
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.TensorBoardScalars, "on_log", look_and_stop)
        with pytest.raises(KeyboardInterrupt):
            stage.run(ctx)
    stage.run(ctx)
    curves = events(ctx.run_dir / TENSORBOARD)
    assert {"loss", "learning_rate", "mean_token_accuracy"} <= set(curves)
    log = read_log(ctx.run_dir / "training_log.jsonl")
    assert [step for step, _ in curves["loss"]] == [1, 2, 3, 4]
    assert [value for _, value in curves["loss"]] == pytest.approx([line["loss"] for line in log], rel=1e-5)
