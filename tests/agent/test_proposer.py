"""Which candidate the small model plays, and that equal texts are scored once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.agent.proposer import Proposer, best_candidate, score_candidates, step_cost
from r2v_core.config.schema import AgentConfig, CandidatesConfig
from r2v_core.engines.scripted import Options, Scripted
from r2v_core.trajectory import Candidate


def candidate(text: str, score: float = 0.5, logprob: float = -1.0) -> Candidate:
    return Candidate(text=text, logprob=logprob, n_tokens=2, entropy=0.1, score_step=score, score_outcome=score)


def test_highest_score_then_logprob_then_first():
    assert best_candidate([candidate("a", 0.2), candidate("b", 0.9), candidate("c", 0.5)]) == 1
    assert best_candidate([candidate("a", logprob=-3.0), candidate("b", logprob=-1.0)]) == 1
    assert best_candidate([candidate("a"), candidate("b")]) == 0


def test_an_action_that_just_failed_is_passed_over_while_another_is_left():
    pair = [candidate("open door", 0.9), candidate("go east", 0.1)]
    assert best_candidate(pair, frozenset({"open door"})) == 1
    assert best_candidate(pair, frozenset({"open door", "go east"})) == 0


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5), min_size=1, max_size=4))
def test_equal_texts_are_scored_once_and_get_equal_scores(texts: list[list[str]]):
    asked: list[list[str]] = []

    class Lengths:
        def score(self, prompts: list[str], actions: list[list[str]]) -> list[list[tuple[float, float]]]:
            asked.extend(actions)
            return [
                [(ord(action) / 200, len(prompt) / 10) for action in row]
                for prompt, row in zip(prompts, actions, strict=True)
            ]

    sampled = [[candidate(text) for text in row] for row in texts]
    prompts = ["p" * (i + 1) for i in range(len(texts))]
    scored = score_candidates(Lengths(), prompts, sampled)
    assert all(len(set(row)) == len(row) for row in asked)
    for i, row in enumerate(scored):
        assert [c.text for c in row] == texts[i]
        assert [(c.score_step, c.score_outcome) for c in row] == [(ord(c.text) / 200, (i + 1) / 10) for c in row]


def test_equal_texts_pool_their_votes():
    said_often = [candidate("go east", 0.5), candidate("take key", 0.8), candidate("go east", 0.5)]
    assert said_often[best_candidate(said_often)].text == "go east"
    doubted = [candidate("go east", 0.3), candidate("take key", 0.8), candidate("go east", 0.3)]
    assert doubted[best_candidate(doubted)].text == "take key"


def test_tokens_are_counted_once_for_what_is_shared():
    """A prompt of three words; two different actions of two words, and an end of turn after each."""

    class Half:
        def score(self, prompts: list[str], actions: list[list[str]]) -> list[list[tuple[float, float]]]:
            return [[(0.5, 0.5)] * len(row) for row in actions]

    engine = Scripted(Options(otherwise=["go east", "take key"]))
    config = CandidatesConfig(k=8, temperature=0.7)
    (found,) = Proposer(engine, Half(), config, 1).propose([("what to do", 0)])
    assert {c.text for c in found.candidates} == {"go east", "take key"}
    assert found.tokens_in == 3 and found.tokens_out == sum(c.n_tokens for c in found.candidates)
    assert found.tokens_verifier == 3 + 2 * (2 + 1)
    assert Proposer(engine, None, config, 1).propose([("what to do", 0)])[0].tokens_verifier == 0


def test_candidates_and_their_scoring_cost_what_the_configuration_says():
    candidates = [
        candidate("a"),
        candidate("a"),
        candidate("b"),
        candidate("b").model_copy(update={"score_step": None}),
    ]
    assert step_cost(AgentConfig(), candidates) == 1.0
    assert step_cost(AgentConfig(cost_slm=2.0, cost_candidate=0.5, cost_verifier=0.1), candidates) == pytest.approx(4.2)
