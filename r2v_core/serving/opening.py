"""A partition's policy, verifier, router and teacher, loaded to be served, as its evaluation loads them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.table import make_rules
from r2v_core.benchmarks import benchmark_class
from r2v_core.config import LoadedConfig
from r2v_core.config.schema import Config
from r2v_core.engines import check_engine
from r2v_core.errors import R2VError
from r2v_core.models.router import Router
from r2v_core.partition import Partition
from r2v_core.runs.directories import new_run_id, runs_folder
from r2v_core.runs.reporting import Reporter
from r2v_core.runs.spec import StageContext, StageSpec, load_upstream
from r2v_core.runs.stage import Stage
from r2v_core.serving.decisions import DecisionLog
from r2v_core.serving.service import METHOD, Service
from r2v_core.stages.inputs import find_inputs
from r2v_core.stages.rollouts import shared_proposer
from r2v_core.stages.teacher_factory import open_teacher
from r2v_core.teachers import check_teacher
from r2v_core.teachers.names import PROVIDERS, find_teacher
from r2v_core.teachers.spending import check_budgets

SERVE = Stage(
    name="serve",
    asset="r2v serve",
    function="r2v_core.serving.opening:open_service",
    title="Serve a trained router",
    group="serving",
    kinds=(),
    resources={},
    inputs=(
        ("policy", "train_dpo"),
        ("verifier", "train_verifier"),
        ("router", "train_router"),
        ("teacher", "train_teacher"),
    ),
)
"""What is read, and where a server has its folder: no stage of the pipeline, it makes nothing."""

LOG = "decisions.jsonl"


@dataclass(frozen=True)
class Wanted:
    """What to serve."""

    partition: Partition
    loaded: LoadedConfig
    project: Path
    teacher: str | None = None
    """Another teacher than the partition's, by name."""
    teacher_options: dict[str, Any] | None = None
    """Of that teacher."""
    log: Path | None = None
    """File of the decisions; None: :data:`LOG` in the server's folder."""
    log_messages: bool = False


@dataclass(frozen=True)
class Opened:
    """A service, and what people should know of it."""

    service: Service
    about: dict[str, Any]
    warnings: tuple[str, ...]


def open_service(wanted: Wanted, report: Reporter) -> Opened:
    """Find the runs, load the models, open teacher and log.

    Policy, verifier and router are those that an evaluation would read now (:mod:`r2v_core.stages.inputs`).

    Raises:
        R2VError: for a run that is missing, a teacher that can't be asked from here, or a log that can't be written.
    """
    project, trained = wanted.project.resolve(), wanted.partition
    served = replace(trained, teacher=wanted.teacher) if wanted.teacher else trained
    provider = _check_servable(served.teacher, project)
    check_engine(wanted.loaded.config.slm)
    inputs = find_inputs(SERVE, wanted.loaded, trained, project, {})
    config = _with_options(wanted)
    check_teacher(served.teacher, config.teacher.options, project)
    check_budgets(served, replace(wanted.loaded, config=config), project)
    model = find_teacher(served.teacher, project).model
    folder = runs_folder(project, config.paths, SERVE)
    run_id = new_run_id(SERVE, served, (provider, model), folder)
    spec = StageSpec(
        stage=SERVE.name,
        partition=served.key,
        provider=provider,
        model=model,
        run_id=run_id,
        run_dir=str(folder / run_id),
        project=str(project),
        config_path=None,
        config=config,
        inputs=inputs,
        fingerprint="",
    )
    try:
        return _opened(wanted, spec, served, report)
    except BaseException:
        _leave(folder / run_id)
        raise


def _opened(wanted: Wanted, spec: StageSpec, served: Partition, report: Reporter) -> Opened:
    config, run_dir, project = spec.config, Path(spec.run_dir), Path(spec.project)
    decisions = DecisionLog(wanted.log or run_dir / LOG, wanted.log_messages)
    cache = project / config.paths.cache
    cache.mkdir(parents=True, exist_ok=True)
    ctx = StageContext(spec, config, served, run_dir, cache, project, load_upstream(spec), report)
    router = Router.load(ctx.inputs["router"].directory)
    if config.evaluation.router_threshold is not None:
        router.threshold = config.evaluation.router_threshold
    instructions = benchmark_class(served.benchmark).instructions
    rules = make_rules([METHOD], config.agent, ctx.seed, router)
    teacher = open_teacher(ctx)
    agent = RoutedAgent(shared_proposer(ctx), teacher, rules, config.agent, config.slm, instructions)
    name = wanted.partition.key
    service = Service(name, agent, served.benchmark, config.benchmark.max_steps, decisions, report.log)
    about = {
        "model": name,
        "runs": {role: run.manifest.run_id for role, run in ctx.inputs.items()},
        "teacher": served.teacher,
        "threshold": router.threshold,
        "calibration": router.calibration.get("statement"),
        "log": str(decisions.path),
    }
    return Opened(service, about, tuple(_warnings(config, wanted.partition, served)))


def _leave(folder: Path) -> None:
    """Remove the folder of a server that never began, as far as nothing is in it."""
    with suppress(OSError):
        if (folder / LOG).exists() and not (folder / LOG).stat().st_size:
            (folder / LOG).unlink()
        folder.rmdir()


def _check_servable(teacher: str, project: Path) -> str:
    """The provider of a teacher that can be asked without an environment."""
    provider = find_teacher(teacher, project).provider
    if provider == "env":
        others = ", ".join(name for name in PROVIDERS if name != "env")
        raise R2VError(
            f"teacher '{teacher}' lives in the benchmark's environment and can't be served; name another one with "
            f"--teacher (providers {others}; r2v teachers lists names)"
        )
    return provider


def _with_options(wanted: Wanted) -> Config:
    """The configuration with the options of the teacher that is served: those configured are the partition's own."""
    config = wanted.loaded.config
    if wanted.teacher_options is None and wanted.teacher in (None, wanted.partition.teacher):
        return config
    teacher = config.teacher.model_copy(update={"options": wanted.teacher_options or {}})
    return config.model_copy(update={"teacher": teacher})


def _warnings(config: Config, trained: Partition, served: Partition) -> list[str]:
    found = []
    if served.teacher != trained.teacher:
        found.append(
            f"the threshold was calibrated with teacher '{trained.teacher}'; what is said of it does not hold for "
            f"'{served.teacher}'"
        )
    if config.evaluation.router_threshold is not None:
        found.append("the threshold is evaluation.router_threshold, not the router's own; nothing is certified for it")
    return found
