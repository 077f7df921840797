"""A stage that is asked to end does so, wherever Python happens to be at that moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from r2v_core.partition import Partition
from r2v_core.runs import reporting
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.runs.stopping import Stopped
from r2v_core.stages import runner
from r2v_core.stages.experiments import load_config
from r2v_core.stages.plan import plan


class EndsInFinaliser:
    """Receives SIGTERM while it is being deleted, where exceptions are ignored."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_a_finaliser_swallows_takes_effect_at_the_next_progress(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []

    def stage(ctx: StageContext) -> StageResult:
        victim = EndsInFinaliser()
        del victim
        reached.append("after the finaliser")
        ctx.report.progress("items", 1, 2)
        reached.append("after the progress report")
        return StageResult(digest="x")

    monkeypatch.setattr(runner, "stage_function", lambda name: stage)
    monkeypatch.chdir(project)
    spec = plan("task_suite", Partition("textworld", "expert", 1), load_config("configs/small.yaml"), project=project)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"):
        runner.execute(spec, Reporter("task_suite"))
    assert reached == ["after the finaliser"]
    manifest = read_manifest(Path(spec.run_dir))
    assert (manifest.status, manifest.error) == ("partial", "stopped by SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stage_whose_items_take_long_says_what_it_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    report = Reporter("collect", said.append)
    report.working("2 episodes side by side, at steps 1 to 1")  # something may have ended a moment ago
    assert said == []
    monkeypatch.setattr(reporting, "QUIET_S", 0.0)
    report.working("2 episodes side by side, at steps 2 to 3")
    assert said == ["2 episodes side by side, at steps 2 to 3"]
