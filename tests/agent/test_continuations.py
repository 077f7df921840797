"""Continuations: a real game is brought to the same state again; shares are those of the policy that plays on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from r2v_core.agent.continuations import SmallModel, Start, Tally, play_on
from r2v_core.agent.live import Job
from r2v_core.agent.loop import play
from r2v_core.agent.proposer import Proposer
from r2v_core.agent.routed import RoutedAgent
from r2v_core.agent.rules.lottery import at_random
from r2v_core.agent.rules.table import make_rules
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Outcome, Task
from r2v_core.config.schema import AgentConfig, CandidatesConfig, PerturbationsConfig, SLMConfig, TeacherLimitsConfig
from r2v_core.engines.scripted import Line, Options, Scripted
from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise, make_noise
from r2v_core.runs.reporting import Reporter
from r2v_core.stages.played_on import with_continuations
from r2v_core.stages.policy_rollouts import REMEDY, starts_of
from r2v_core.teachers import make_teacher
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.context import TeacherContext
from r2v_core.trajectory import Episode

N = 4
ROOT = Path(__file__).parents[2]
DITHER = Options(otherwise=["look", "inventory", "go east", "go west", "go north", "go south"])


class Odd:
    """An environment that breaks at its second step, or whose first observation is never the same."""

    def __init__(self, environment: Any, how: str, number: int) -> None:
        self.environment, self.how, self.number, self.steps = environment, how, number, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.environment, name)

    def reset(self) -> Outcome:
        outcome: Outcome = self.environment.reset()
        if self.how == "drifts":
            outcome.observation.feedback = f"It is opened for the {self.number}th time."
        return outcome

    def step(self, action: str) -> Outcome:
        self.steps += 1
        if self.how == "breaks" and self.steps == 2:
            raise RuntimeError("boom")
        outcome: Outcome = self.environment.step(action)
        return outcome


@dataclass
class Game:
    """A task, and the small model's play on it."""

    benchmark: Benchmark
    task: Task
    cache: Path
    opened: int = 0

    def play(
        self,
        jobs: Sequence[Job],
        says: Options,
        noise: Noise | None = None,
        odd: dict[int, str] | None = None,
        history: int = 4,
    ) -> list[Episode]:
        """Play jobs by a script; ``odd``: what is wrong with the n-th environment from now on."""
        began = self.opened

        def open_environment(task: Task) -> Any:
            self.opened += 1
            environment = self.benchmark.open(task, self.cache)
            how = (odd or {}).get(self.opened - began)
            return Odd(environment, how, self.opened) if how else environment

        proposer = Proposer(Scripted(says), None, CandidatesConfig(k=2), seed=1)
        slm = SLMConfig(max_prompt_tokens=4000, history_steps=history)
        driver = SmallModel(proposer, AgentConfig(), slm, "Play.", lambda *_: True)
        return list(
            play(jobs, driver, open_environment=open_environment, noise=noise or Noise.none(), parallel=3,
                 benchmark="textworld", seed=1, metadata={})
        )  # fmt: skip

    def shares(self, starts: Sequence[Start], says: Options, **how: Any) -> list[Tally]:
        """What becomes of N continuations of each start."""
        ended = play_on(starts, N, partial(self.play, says=says, **how))
        found = {start.action: tally for start, tally in ended}
        return [found[start.action] for start in starts]


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Game:
    cache = tmp_path_factory.mktemp("games")
    options = {"mix": [{"family": "custom", "rooms": 2, "objects": 4, "quest_length": 3}], "goals": ["detailed"]}
    benchmark = make_benchmark("textworld", options, {"train": 1}, max_steps=7)
    (task,) = benchmark.make_tasks(1, cache)
    return Game(benchmark, task, cache)


@pytest.fixture(scope="module")
def winning(game: Game) -> Options:
    """The script of the game's expert."""
    environment, lines = game.benchmark.open(game.task, game.cache), []
    outcome = environment.reset()
    while not outcome.done:
        action = environment.expert_action()
        assert action is not None
        lines.append(Line(when=re.escape(outcome.observation.state), say=[action]))
        outcome = environment.step(action)
    environment.close()
    return Options(script=lines)


def test_continuations_repeat_the_episode_exactly_and_then_go_their_own_ways(game: Game) -> None:
    noise = make_noise(
        PerturbationsConfig.model_validate(
            {"tool_flakiness": {"timeout": 0.4, "garbled": 0.5}, "partial_observability": {"drop_sentences": 0.5}}
        )
    )
    (episode,) = game.play([Job("e", game.task, z=100003)], DITHER, noise)
    at = 5
    assert len(episode.steps) == 7 and any(not step.executed for step in episode.steps[:at])
    again: list[Episode] = []

    def played(jobs: Sequence[Job]) -> list[Episode]:
        again.extend(game.play(jobs, DITHER, noise))
        return again

    ((_, tally),) = play_on([Start(episode, at, "examine me", game.task)], N, played)
    assert tally == Tally(won=0, played=N) and len(again) == N
    told = {"observation", "clean", "action", "actor", "executed", "progress", "remaining", "perturbations"}
    for other in again:
        for before, after in zip(episode.steps[:at], other.steps, strict=False):
            assert after.model_dump(include=told) == before.model_dump(include=told)
        assert other.steps[at].observation == episode.steps[at].observation
        assert other.steps[at].action == "examine me" and len(other.steps) == 7
    assert len({other.steps[-1].action for other in again}) > 1, "each draws for itself"


def test_pairs_meet_the_same_draws_where_they_meet_the_same_state(game: Game) -> None:
    """To the game 'examine me' and 'EXAMINE ME' are one; and without a history, to the small model, too."""
    (episode,) = game.play([Job("e", game.task)], DITHER)

    def tails(paired: bool) -> list[list[tuple[str, ...]]]:
        found: list[Episode] = []

        def played(jobs: Sequence[Job]) -> list[Episode]:
            found.extend(game.play(jobs, DITHER, history=0))
            return found

        starts = [Start(episode, 2, action, game.task, paired) for action in ("examine me", "EXAMINE ME")]
        list(play_on(starts, N, played))
        return [sorted(tuple(one.actions[3:]) for one in found if one.actions[2] == s.action) for s in starts]

    one, other = tails(paired=True)
    assert one == other and len(set(one)) > 1
    one, other = tails(paired=False)
    assert one != other


def router_that_always_asks(teacher: Teacher, game: Game, agent: AgentConfig, **more: Any) -> RoutedAgent:
    proposer = Proposer(Scripted(Options(otherwise=["inventory"])), None, CandidatesConfig(k=2), seed=1)
    rules = make_rules(["llm_only"], agent, 1, None) | {"random_router": at_random(1.0, 1)}
    return RoutedAgent(proposer, teacher, rules, agent, SLMConfig(max_prompt_tokens=4000), "Play.", **more)


@pytest.fixture(scope="module")
def looker(game: Game) -> Teacher:
    """A teacher that always looks."""
    options = {"engine": "scripted", "engine_options": {"otherwise": ["look"]}}
    return make_teacher("smollm2", options, TeacherLimitsConfig(), TeacherContext(ROOT, game.cache, game.cache))


def routed(game: Game, agent: RoutedAgent, method: str = "random_router") -> Episode:
    def open_environment(task: Task) -> Any:
        return game.benchmark.open(task, game.cache)

    (episode,) = play(
        [Job("e", game.task, method=method)], agent, open_environment=open_environment,
        noise=Noise.none(), parallel=1, benchmark="textworld", seed=1, metadata={},
    )  # fmt: skip
    return episode


def test_a_teacher_that_changed_nothing_twice_is_not_paid_again(game: Game, looker: Teacher) -> None:
    episode = routed(game, router_that_always_asks(looker, game, AgentConfig()))
    assert [step.actor for step in episode.steps] == ["teacher"] * 2 + ["slm"] * 5
    decisions = [step.decision for step in episode.steps if step.decision is not None]
    assert [decision.blocked for decision in decisions] == [None] * 2 + ["vain"] * 5
    assert [decision.features["vain_calls"] for decision in decisions] == [0, 1, 2, 2, 2, 2, 2]
    assert episode.cost == 2 * 51 + 5
    unlimited = router_that_always_asks(looker, game, AgentConfig(max_vain_calls=0))
    for whole in (
        routed(game, unlimited),
        routed(game, router_that_always_asks(looker, game, AgentConfig()), "llm_only"),
    ):
        assert {step.actor for step in whole.steps} == {"teacher"}, "without a limit, and without candidates"


def test_what_the_teacher_would_do_is_overheard_only_where_it_could_be_asked(game: Game, looker: Teacher) -> None:
    def from_the_second_on(episode_id: str, step: int) -> bool:
        return step >= 1

    agent = router_that_always_asks(looker, game, AgentConfig(max_teacher_calls=2), overheard=from_the_second_on)
    agent.rules = {"random_router": at_random(0.0, 1)}
    episode = routed(game, agent)
    assert [step.expert_action for step in episode.steps] == [None] + ["look"] * 6
    assert {step.actor for step in episode.steps} == {"slm"} and episode.cost == 7
    assert episode.steps[1].tokens_in > episode.steps[0].tokens_in, "what it reads is counted"
    agent.rules = {"random_router": at_random(1.0, 1)}
    spent = routed(game, agent)
    assert [step.actor for step in spent.steps][:3] == ["teacher", "teacher", "slm"]
    assert {step.expert_action for step in spent.steps} == {None}, "nobody could have paid for it"


def test_shares_are_those_of_the_policy_that_plays_on(game: Game, winning: Options) -> None:
    (episode,) = game.play([Job("e", game.task)], winning)
    plan = episode.actions
    assert episode.success and len(plan) >= 2
    starts = [Start(episode, 0, action, game.task) for action in (plan[0], "look")]
    assert game.shares(starts, winning) == [Tally(N, N), Tally(N, N)], "it makes up for a look"
    assert game.shares(starts, DITHER)[1] == Tally(0, N)
    (last,) = game.shares([Start(episode, len(plan) - 1, plan[-1], game.task)], DITHER)
    assert last == Tally(N, N), "the action itself wins"


def test_candidates_not_played_are_labelled_by_the_environment(game: Game, winning: Options) -> None:
    plan = [line.say[0] for line in winning.script]
    (episode,) = game.play([Job("e", game.task)], Options(otherwise=[plan[0], "inventory"]))
    first = episode.steps[0]
    labels = first.alternatives | {first.action: first.progress}
    assert len(first.alternatives) == 1 and labels == {plan[0]: True, "inventory": False}


def test_a_continuation_that_fails_ends_alone_and_one_that_can_not_repeat_says_so(game: Game, winning: Options) -> None:
    (episode,) = game.play([Job("e", game.task)], winning)
    start = Start(episode, 0, "look", game.task)
    (tally,) = game.shares([start], winning, odd={2: "breaks"})
    assert tally == Tally(N - 1, N - 1, "environment: RuntimeError: boom")
    said: list[str] = []
    report = Reporter("policy_rollouts", sink=said.append)
    drifts = dict.fromkeys(range(1, 99), "drifts")
    pairs = [(episode, starts_of(episode, Job("e", game.task), lambda *_: True))]
    with pytest.raises(R2VError, match=r"came out differently.*training\.verifier\.on_policy\.episodes=0"):
        list(with_continuations(pairs, N, partial(game.play, says=winning, odd=drifts), report, REMEDY))
    assert "continuations ended in an error and are left out" in said[-1]
    assert said[0].startswith("actions tried in e and later episodes 1/")
