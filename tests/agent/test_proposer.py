"""Which candidate the small model plays, and that equal texts are scored once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from r2v_core.agent.proposer import best_candidate, score_candidates
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
