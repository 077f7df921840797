"""A rule and a stage from another package reach everything that is made from the records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r2v_core.agent.rules.base import RoutingContext
from r2v_core.agent.rules.table import RULES, evaluated_methods, make_rules
from r2v_core.config.schema import AgentConfig, EvaluationConfig, RouterConfig
from r2v_core.errors import R2VError
from r2v_core.evaluation.frame import frames
from r2v_core.models.router import Router, RouterNet, Scorer
from r2v_core.results import ResultsManager
from r2v_core.results.bundles import Analysis, make_bundles, write_bundle
from r2v_core.results.plotting import save
from r2v_core.results.report import render_report
from r2v_core.results.success_figures import frontier
from r2v_core.stages.train_router import calibrate
from r2v_core.training.guarantee import guarantee_of
from r2v_core.training.lagrangian import FailureModel
from r2v_core.training.router_diagnostics import diagnose, draw_levels, preview
from r2v_core.training.router_threshold import Played
from r2v_core.trajectory import Episode
from tests.extension.lab_package.records import LATE
from tests.results.conftest import play as made_up_episode
from tests.router.conftest import synthetic_rows
from tests.stages.conftest import ROOT, SMALL

PROFILE = "shared: /s\nlogin: {host: local}\nenvironment: {venv: /v}\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A project, and Python with ``lab_package`` installed beside this one: runs ``python …`` there."""
    folder = tmp_path_factory.mktemp("lab")
    packages, project = folder / "packages", folder / "project"
    info = packages / "lab_package-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copytree(Path(__file__).with_name("lab_package"), packages / "lab_package")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[r2v.rules]\nlate = lab_package.records:LATE\n\n[r2v.stages]\ncensus = lab_package.records:CENSUS\n"
    )
    shutil.copytree(ROOT / "configs", project / "configs")
    (project / "configs/small.yaml").write_text(SMALL.replace("{cache}", str(folder / "cache")))
    (project / "configs/slurm/mine.yaml").write_text(PROFILE)
    path = os.pathsep.join([str(packages), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "R2V_PROJECT": str(project), "R2V_SLURM_PROFILE": "mine"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)

    return run


def test_a_rule_of_another_package_is_a_method(installed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "import json; from r2v_core.stages.experiments import load_config;"
        "from r2v_core.agent.rules.table import evaluated_methods;"
        "print(json.dumps([evaluated_methods(load_config('configs/small', o).config.evaluation) for o in"
        " ([], ['evaluation.methods=[r2v, late_router]', 'evaluation.sweep=[0.2]'])]))"
    )
    done = installed("-c", code)
    assert done.returncode == 0, done.stderr
    every, chosen = json.loads(done.stdout)
    assert every == [*RULES, "late_router"]
    assert chosen == ["r2v", "late_router", "r2v@0.2", "late_router@0.2"]


def test_a_stage_of_another_package_is_an_asset_a_job_and_a_command(
    installed: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = (
        "import json; from r2v_assets.definitions import defs; import dagster as dg;"
        "spec = defs.get_repository_def().asset_graph.get(dg.AssetKey('task_census'));"
        "print(json.dumps([spec.group_name, sorted(spec.kinds), [k.to_user_string() for k in spec.parent_keys]]))"
    )
    listed = installed("-c", code)
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout) == ["lab", ["json"], ["task_suite"]]
    rendered = installed("-m", "r2v_assets.cli", "slurm", "render", "task_census")
    assert rendered.returncode == 0, rendered.stderr
    assert "--cpus-per-task=3" in rendered.stdout and "--time=00:10:00" in rendered.stdout
    assert '"$python" -m lab_package.census --spec ' in rendered.stdout
    suite = installed("-m", "r2v_core.stages.task_suite", "--config", "configs/small.yaml")
    assert suite.returncode == 0, suite.stderr
    done = installed("-m", "lab_package.census", "--config", "configs/small.yaml")
    assert done.returncode == 0, done.stderr
    code = "import pathlib; print(*(p.read_text() for p in pathlib.Path('data/runs').glob('census_*/census.json')))"
    assert json.loads(installed("-c", code).stdout) == {"custom": 3, "treasure_hunter": 3}


def test_a_new_rule_goes_through_calibration_tables_figures_and_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(RULES, LATE.name, LATE)
    rows = synthetic_rows(2, "validation", tasks=8)
    router = Router({"mlp": Scorer([RouterNet(2, [4], 0.0)])}, ["entropy", "verifier_mean"], "mlp")
    asked: list[str] = []

    def play(rule: str, share: float) -> Played:
        asked.append(rule)
        return Played(share, (0.0 if share >= 0.28 else 0.5,) * 40)

    config = RouterConfig(cvar_epsilon=0.1, baselines=["entropy_router", "late_router"])
    calibrate(router, rows, rows, FailureModel(0.0, 0.0, 1.0), config, guarantee_of(config, "env"), play)
    assert set(asked) == {"r2v", "entropy_router", "late_router"}
    assert router.rules["late_router"]["threshold"] == router.threshold_at("late_router", 0.28)
    draw_levels(router.calibration, tmp_path / "levels.png")
    assert "| late_router |" in preview(diagnose(router, rows, 1), router)

    evaluation = EvaluationConfig(methods=["slm_only", "llm_only", "r2v", "late_router"], sweep=[0.3])
    rules = make_rules(evaluated_methods(evaluation), AgentConfig(), 1, router)
    context = RoutingContext({"horizon_fraction": 1.0}, [], "t", 1, 0, 0, lambda: None)
    assert rules["late_router"](context).escalate and rules["late_router@0.3"](context).probability == 1.0

    episodes = [_as_late(made_up_episode("r2v", "noisy", 1, task, z)) for task in range(4) for z in (1000, 1001)]
    episodes += [
        made_up_episode(method, "noisy", 1, task, z)
        for method in ("r2v", "slm_only", "llm_only")
        for task in range(4)
        for z in (1000, 1001)
    ]
    analysis = Analysis(cvar_alpha=0.25, bootstrap=20, confidence=0.95)
    folder = tmp_path / "structured_results"
    folder.mkdir()
    for bundle in make_bundles(frames(episodes), {("noisy", 1): ("run", "digest")}, {"partition": "x"}, analysis):
        write_bundle(bundle, folder)
    results = ResultsManager(tmp_path)
    assert list(results.main_table["method"]) == ["r2v", "slm_only", "llm_only", "late_router"]
    assert results.main_table.set_index("method")["ece"].isna()["late_router"]  # its score is no probability
    save(frontier(results.evaluations, "noisy"), tmp_path / "figures", "frontier_noisy")
    assert "late_router" in (tmp_path / "figures/frontier_noisy.svg").read_text()
    page = render_report(results, tmp_path / "figures", episodes, {})
    assert "asks late in an episode" in page and "Share of the horizon that is used up" in page


def _as_late(episode: Episode) -> Episode:
    metadata = {**episode.metadata, "method": "late_router"}
    return episode.model_copy(update={"episode_id": f"late-{episode.episode_id}", "metadata": metadata})


def test_a_router_that_was_calibrated_before_a_rule_existed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, LATE.name, LATE)
    router = Router({"mlp": Scorer([RouterNet(1, [2], 0.0)])}, ["entropy"], "mlp")
    with pytest.raises(R2VError, match="calibrated without 'late_router'; materialise 'router' again"):
        make_rules(["late_router"], AgentConfig(), 1, router)
