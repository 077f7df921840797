"""A language model in the verifier's place: what it is asked, what is read, and whom it agrees with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2v_core.agent.proposer import score_candidates
from r2v_core.evaluation.agreement import agreement
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.chat import ChatTeacher
from r2v_core.teachers.judge import UNREADABLE, Judge, read_scores
from r2v_core.trajectory import Candidate
from tests.teachers.server import Server, says

Make = Callable[..., Teacher]
PROMPT = "<|im_start|>system\nYou play.<|im_end|>\n<|im_start|>user\nGoal: Eat.\nA kitchen.<|im_end|>\n"


@pytest.fixture
def judge(teacher: Make) -> Judge:
    model = teacher("mine", max_tokens=100)
    assert isinstance(model, ChatTeacher)
    return Judge(model.ask, lambda line: None)


def test_scores_come_in_the_order_of_the_candidates(server: Server, judge: Judge) -> None:
    server.otherwise = says("Sure: [[0.9, 0.8], [0.1, 0]]")
    candidates = [Candidate(text=text, logprob=-1, n_tokens=1, entropy=0) for text in ("eat apple", "wait", "wait")]
    ((apple, wait, again),) = score_candidates(judge, [PROMPT], [candidates])
    assert (apple.score_step, apple.score_outcome) == (0.9, 0.8)
    assert (wait.score, again.score) == (0.05, 0.05)
    (asked,) = server.requests
    text = asked.messages[1]["content"]
    assert "Goal: Eat.\nA kitchen." in text and "<|" not in text
    assert text.endswith('Candidate actions:\n1. "eat apple"\n2. "wait"')


def test_states_are_asked_about_at_once_and_never_twice(server: Server, judge: Judge) -> None:
    server.otherwise = says("[[0.5, 0.25]]")
    assert judge.score(["a", "b", "c"], [["x"], [], ["y"]]) == [[(0.5, 0.25)], [], [(0.5, 0.25)]]
    judge.score(["c", "a"], [["y"], ["x"]])
    assert len(server.requests) == 2


def test_what_can_not_be_read_is_asked_again_then_counted(server: Server, judge: Judge) -> None:
    server.script.extend([says("Good!"), says("[[1, 1]]")])
    assert judge.score(["a"], [["x"]]) == [[(1.0, 1.0)]] and judge.failures == 0
    server.otherwise = says("[[0.1, 0.2], [0.3, 0.4]]")  # of another number of candidates
    assert judge.score(["b"], [["x"]]) == [[(UNREADABLE, UNREADABLE)]]
    assert (judge.failures, judge.judged, len(server.requests)) == (1, 2, 4)


PROBABILITY = st.floats(0, 1) | st.integers(0, 1)
PAIRS = st.lists(st.tuples(PROBABILITY, PROBABILITY), min_size=1, max_size=5)


@settings(deadline=None)
@given(pairs=PAIRS, before=st.sampled_from(["", "Scores [of 2]:\n", "```json\n"]), after=st.sampled_from(["", " []"]))
def test_any_scores_are_read_back(pairs: list[tuple[float, float]], before: str, after: str) -> None:
    assert read_scores(before + json.dumps(pairs) + after, len(pairs)) == pairs


@settings(deadline=None)
@given(st.text() | st.text("[]0123456789,. "), st.integers(1, 3))
def test_anything_else_is_read_as_scores_or_as_nothing(reply: str, count: int) -> None:
    found = read_scores(reply, count)
    assert found is None or (len(found) == count and all(0 <= x <= 1 for pair in found for x in pair))


@pytest.mark.parametrize(
    "reply", ["", "[[2, 0]]", "[[-1, 0]]", "[[true, 0]]", "[[0.5]]", '[["1", "0"]]', "[[NaN, 0]]", "[1]"]
)
def test_these_are_no_scores(reply: str) -> None:
    assert read_scores(reply, 1) is None


def test_agreement_is_told_per_state_and_candidate() -> None:
    judge, verifier = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [[0.8, 0.2], [0.7, 0.1], [0.3, 0.4]]
    found = agreement(judge, verifier, [[True, False], [True, False], [None, None]])
    assert found["judge_undecided"] == 1 and found["judge_same_best"] == pytest.approx(2 / 3)
    assert found["verifier_auc"] == 1.0 and found["judge_auc"] == 0.75
    assert -1 <= found["judge_correlation"] <= 1
    assert agreement([], [], []) == {"judge_undecided": 0}
    assert set(agreement([[0.5]], [[0.5]], [[True]])) == {"judge_undecided", "judge_same_best"}
