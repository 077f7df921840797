"""A real game played through a server by the project's own agent, and the same one played by an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2v_core.agent.live import Job
from r2v_core.agent.loop import play
from r2v_core.agent.proposer import Proposer
from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.table import make_rules
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.config.schema import Config, PerturbationsConfig, TeacherLimitsConfig
from r2v_core.engines import open_engine
from r2v_core.partition import Partition
from r2v_core.perturbations import make_noise
from r2v_core.stages.experiments import partition_config
from r2v_core.teachers import make_teacher
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.context import TeacherContext
from r2v_core.trajectory import Episode
from tests.serving.conftest import CONFIG, Serve, stuck_router
from tests.teachers.server import Server

WORDS = ["go east", "go west", "go north", "go south", "inventory"]
OPTIONS = {"goals": ["detailed"], "mix": [{"family": "custom", "rooms": 3, "objects": 3, "quest_length": 2}]}
STEPS = 8


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Task, Path]:
    cache = tmp_path_factory.mktemp("games")
    benchmark = make_benchmark("textworld", OPTIONS, {"test": 1}, STEPS)
    (task,) = benchmark.make_tasks(1, cache)
    return benchmark, task, cache


def played(game: tuple[Benchmark, Task, Path], method: str, teacher: Teacher, config: Config, cache: Path) -> Episode:
    """The game played as an evaluation without noise plays it."""
    benchmark, task, games = game
    proposer = Proposer(open_engine(config.slm, cache), None, config.candidates, seed=1)
    rules = make_rules([method], config.agent, 1, stuck_router())
    agent = RoutedAgent(proposer, teacher, rules, config.agent, config.slm, benchmark.instructions)
    (episode,) = play(
        [Job("one", task, method=method)],
        agent,
        open_environment=lambda task: benchmark.open(task, games),
        noise=make_noise(PerturbationsConfig()),
        parallel=1,
        benchmark="textworld",
        seed=1,
        metadata={},
    )
    return episode


def test_an_episode_through_the_server_is_the_one_that_an_evaluation_plays(
    game: tuple[Benchmark, Task, Path], serve: Serve, project: Path, teacher: Server
) -> None:
    words = ", ".join(WORDS)
    small = (project / CONFIG).read_text().partition("slm:")[0]
    script = f"slm: {{engine: scripted, engine_options: {{otherwise: [{words}]}}}}\nagent: {{verifier: false}}\n"
    (project / CONFIG).write_text(small + script)
    loaded = partition_config(Partition.parse("textworld:mine|1"), project / CONFIG, (), project)
    limits = TeacherLimitsConfig(attempts=1, patience_s=0)

    def ask(name: str) -> Teacher:
        return make_teacher(name, {}, limits, TeacherContext(project, project / "cache", project / "run"))

    evaluated = played(game, "r2v", ask("mine"), loaded.config, project / "cache")
    served = serve()
    (project / "configs/teachers.yaml").write_text(
        f'teachers: {{served: {{provider: openai_compatible, model: "{served.name}", base_url: "{served.url}/v1"}}}}'
    )
    through = played(game, "llm_only", ask("served"), loaded.config, project / "cache")

    actors = [step.actor for step in evaluated.steps]
    assert len(actors) == STEPS and set(actors) == {"slm", "teacher"}
    assert through.actions == evaluated.actions and through.success == evaluated.success
    assert [step.observation for step in through.steps] == [step.observation for step in evaluated.steps]
    lines = served.lines()
    assert [line["actor"] for line in lines] == actors
    decisions = [step.decision for step in evaluated.steps if step.decision is not None]
    assert [line["features"] for line in lines] == [decision.features for decision in decisions]
    assert [line["score"] for line in lines] == [decision.probability for decision in decisions]
    assert lines[-1]["teacher_calls"] == actors.count("teacher")
    assert [line["cost"] for line in lines] == [step.cost for step in evaluated.steps]
