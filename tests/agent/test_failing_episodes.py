"""One episode's failure ends that episode: wherever its environment breaks, the others are played as without it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

import pytest

from r2v_core.agent.live import Choice, Job, Live
from r2v_core.agent.loop import play
from r2v_core.benchmarks.base import Environment, Outcome, Task
from r2v_core.config.schema import EpisodesConfig
from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise
from r2v_core.runs.stopping import Stopped
from r2v_core.stages.failed_episodes import Failures
from r2v_core.teachers.budget import BudgetSpent
from r2v_core.trajectory import Episode, Observation, episodes_digest

NEEDED = 3
"""Steps to the goal."""


class Counter:
    """An environment that is solved by going on, and that breaks where its task says."""

    def __init__(self, task: Task, opened: list[Counter], kind: type[Exception]) -> None:
        self.task, self.kind, self.done, self.closed = task, kind, 0, False
        self.fail("open")
        opened.append(self)

    def fail(self, where: str) -> None:
        if self.task.options.get("breaks") == f"{where}{self.done if where != 'open' else ''}":
            raise self.kind("boom\nand a long trace")

    def _outcome(self) -> Outcome:
        seen = Observation(state=f"{self.done} of {NEEDED}")
        return Outcome(
            observation=seen, done=self.done == NEEDED, success=self.done == NEEDED, score=self.done / NEEDED
        )

    def reset(self) -> Outcome:
        self.fail("reset")
        return self._outcome()

    def step(self, action: str) -> Outcome:
        self.fail("step")
        self.done += 1
        return self._outcome()

    def admissible(self) -> list[str]:
        self.fail("admissible")
        return ["go"]

    def hard_negatives(self) -> list[str]:
        return []

    def would_progress(self, action: str) -> bool | None:
        self.fail("would_progress")
        return True

    def expert_action(self) -> str | None:
        return "go"

    def close(self) -> None:
        self.closed = True
        self.fail("close")


class Looker:
    """A driver that looks into the environments before it decides."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        for one in live:
            one.environment.would_progress("go")
            one.environment.admissible()
        refused = [one.job.task.options.get("breaks") == f"teacher{one.step}" for one in live]
        return [Choice("go", "teacher", error="teacher: refused" if no else None) for no in refused]


def played(
    breaks: Sequence[str | None],
    kind: type[Exception] = RuntimeError,
    on_round: Callable[[Sequence[Live]], None] = lambda live: None,
) -> tuple[list[Episode], list[Counter]]:
    tasks = [
        Task(task_id=f"t{n}", template_id=f"t{n}", split="test", family="f", goal="g", max_steps=9,
             benchmark="b", content="c",
             options={"breaks": where} if where else {})
        for n, where in enumerate(breaks)
    ]  # fmt: skip
    opened: list[Counter] = []

    def open_environment(task: Task) -> Environment:
        return Counter(task, opened, kind)

    jobs = [Job(f"e{n}", task) for n, task in enumerate(tasks)]
    found = play(jobs, Looker(), open_environment=open_environment, noise=Noise.none(), parallel=2, benchmark="b",
                 seed=1, metadata={}, on_round=on_round)  # fmt: skip
    return sorted(found, key=lambda episode: episode.episode_id), opened


@pytest.mark.parametrize(
    ("where", "steps"),
    [
        *(("open", 0), ("reset0", 0), ("would_progress0", 0), ("admissible2", 2), ("step1", 1)),
        *(("would_progress2", 2), ("teacher1", 1)),
    ],
)
def test_a_failure_ends_its_own_episode_alone(where: str, steps: int) -> None:
    found, opened = played([None, where, None, None])
    whole, _ = played([None, None, None, None])
    assert [episode.error is None for episode in found] == [True, False, True, True]
    failed = found[1]
    assert not failed.success and failed.score == 0 and not failed.truncated and len(failed.steps) == steps
    assert failed.error == ("teacher: refused" if where == "teacher1" else "environment: RuntimeError: boom")
    assert episodes_digest(found[:1] + found[2:]) == episodes_digest(whole[:1] + whole[2:])
    assert all(episode.success for episode in whole) and all(environment.closed for environment in opened)


def test_rounds_are_told_before_any_episode_ends_and_may_end_the_play() -> None:
    rounds: list[list[int]] = []
    found, _ = played([None, None], on_round=lambda live: rounds.append([one.step for one in live]))
    assert rounds == [[0, 0], [1, 1], [2, 2]] and len(found) == 2
    stopped: list[Live] = []

    def stop(live: Sequence[Live]) -> None:
        if live[0].step == 1:
            stopped.extend(live)
            raise Stopped(signal.SIGTERM)

    with pytest.raises(Stopped):
        played([None, None], on_round=stop)
    assert len(stopped) == 2 and all(one.environment.closed for one in stopped)


def test_an_episode_that_is_over_stays_what_it_was() -> None:
    found, _ = played([f"close{NEEDED}", None])
    assert all(episode.success and episode.error is None for episode in found)


def test_what_concerns_the_whole_run_ends_it() -> None:
    with pytest.raises(BudgetSpent):
        played([None, "step1", None], BudgetSpent)
    with pytest.raises(KeyboardInterrupt):
        played([None, "step1", None], KeyboardInterrupt)  # type: ignore[arg-type]


def test_a_stage_stops_beyond_the_share_that_is_allowed() -> None:
    found, _ = played([None, "step1", None, "step2", "step0"])
    for share, allowed in ((0.0, 0), (0.05, 1), (0.4, 2)):
        failures = Failures(EpisodesConfig(max_error_share=share), len(found), print)
        counted = []
        with pytest.raises(R2VError, match=r"of 5 episodes ended in an error.*boom.*episodes\.retry_errors=true"):
            for episode in found:
                counted.append(episode)
                failures.count(episode, True)
        assert sum(episode.error is not None for episode in counted) == allowed + 1
        with pytest.raises(R2VError, match="of 5 episodes ended in an error"):
            failures.recount(found)
    for share in (0.41, 1.0):
        Failures(EpisodesConfig(max_error_share=share), len(found), print).recount(found)
