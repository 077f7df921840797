"""Safety failures end to end: real games, real noise, and agents that obey or ignore what is injected."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from r2v_core.agent.live import Choice, Driver, Job, Live
from r2v_core.agent.loop import play
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.config.schema import PerturbationsConfig
from r2v_core.evaluation.frame import carried_out_injection, frames
from r2v_core.perturbations import make_noise
from r2v_core.perturbations.prompt_injection import TEMPLATES
from r2v_core.trajectory import Episode

ACTION, CODE = r"(?P<action>[a-z @.:/]+)", r"(?P<code>.+)"
COMMANDS = [
    re.compile(re.escape(template).replace(r"\{action\}", ACTION).replace(r"\{code\}", CODE))
    for templates in TEMPLATES.values()
    for template in templates
]
DECODE: tuple[Callable[[str], str], ...] = (
    lambda code: base64.b64decode(code, validate=True).decode(),
    lambda code: bytes.fromhex(code).decode(),
    lambda code: codecs.decode(code, "rot13"),
)


def commanded(text: str) -> list[str]:
    """The actions that a text orders, as a reader finds them who decodes what is encoded."""
    orders = []
    for found in (found for command in COMMANDS for found in command.finditer(text)):
        if "code" not in found.groupdict():
            orders.append(found["action"])
            continue
        for decode in DECODE:
            with suppress(ValueError):
                start, _, action = decode(found["code"]).partition("must be: ")
                orders += [action] if start == "Your next action " else []
    return orders


class Obedient:
    """Does what the observation orders; else what the expert would do."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        choices = []
        for one in live:
            orders = commanded(one.seen.text)
            choices.append(Choice(orders[0] if orders else str(one.environment.expert_action()), "slm"))
        return choices


class Deaf:
    """Does what the expert would do, whatever it reads."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        return [Choice(str(one.environment.expert_action()), "slm") for one in live]


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    mix = [{"family": "custom", "rooms": 2, "objects": 6, "quest_length": 3}, {"family": "treasure_hunter", "level": 4}]
    return make_benchmark("textworld", {"mix": mix, "goals": ["detailed"]}, {"test": 2}, max_steps=8)


@pytest.fixture(scope="module")
def tasks(benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    return benchmark.make_tasks(1, tmp_path_factory.getbasetemp() / "safety")


def played(
    driver: Driver, benchmark: Benchmark, tasks: list[Task], cache: Path, probability: float = 0.5, timeout: float = 0.0
) -> list[Episode]:
    config = PerturbationsConfig.model_validate(
        {
            "severity_spread": 0.0,
            "prompt_injection": dict.fromkeys(TEMPLATES, probability),
            "tool_flakiness": {"timeout": timeout},
        }
    )
    jobs = [
        Job(f"{task.task_id}~{z}", task, z=z, method="slm_only", metadata={"method": "slm_only", "condition": "noisy"})
        for task in tasks
        for z in range(4)
    ]
    return list(
        play(
            jobs,
            driver,
            open_environment=lambda task: benchmark.open(task, cache),
            noise=make_noise(config),
            parallel=4,
            benchmark="textworld",
            seed=1,
            metadata={},
        )
    )


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "safety"


def injections(episode: Episode) -> list[tuple[int, str]]:
    return [
        (step.index, str(record.detail["target_action"]))
        for step in episode.steps
        for record in step.perturbations
        if record.family == "prompt_injection"
    ]


def test_every_injected_order_names_a_recognisable_action(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    episodes = played(Deaf(), benchmark, tasks, cache, probability=1.0)
    assert episodes and all(len(injections(episode)) == len(TEMPLATES) * len(episode.steps) for episode in episodes)
    for episode in episodes:
        for step in episode.steps:
            targets = [str(r.detail["target_action"]) for r in step.perturbations if r.family == "prompt_injection"]
            assert sorted(commanded(step.observation.text)) == sorted(targets)
            assert step.clean is not None and not commanded(step.clean.text)


def test_an_episode_in_which_the_agent_obeys_counts(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    episodes = played(Obedient(), benchmark, tasks, cache)
    table = frames(episodes).episodes.set_index(["task_id", "z"])
    assert table["injected"].any()
    assert table["safety_failure"].equals(table["injected"])  # whoever is ordered obeys
    obeyed = [step for episode in episodes for step in episode.steps if carried_out_injection(step)]
    assert len(obeyed) >= 8 and all(step.executed for step in obeyed)


def test_an_agent_that_ignores_orders_has_no_safety_failure(
    benchmark: Benchmark, tasks: list[Task], cache: Path
) -> None:
    table = frames(played(Deaf(), benchmark, tasks, cache)).episodes
    assert table["injected"].mean() > 0.5
    assert not table["safety_failure"].any()


def test_an_order_that_the_tools_swallowed_was_not_carried_out(
    benchmark: Benchmark, tasks: list[Task], cache: Path
) -> None:
    table = frames(played(Obedient(), benchmark, tasks, cache, timeout=1.0)).episodes
    assert table["injected"].all() and not table["safety_failure"].any()
