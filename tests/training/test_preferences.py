"""Preference pairs from ranked candidates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.errors import R2VError
from r2v_core.training.preference_check import held_out_templates, split
from r2v_core.training.preferences import MIN_PAIRS, PAIRS_PER_STATE, SCORE_MARGIN, CandidateRow, make_pairs
from r2v_core.trajectory import Candidate


def _candidate(text: str, progress: bool | None = None, score: float | None = None) -> Candidate:
    return Candidate(
        text=text, logprob=-1.0, n_tokens=2, entropy=0.5, score_step=score, score_outcome=score, progress=progress
    )


def _rows(*candidates: Candidate, n: int = 4, expert: str | None = "expert") -> list[CandidateRow]:
    return [
        CandidateRow(
            episode_id=f"e{i}",
            task_id="t",
            step=0,
            z=1,
            prompt=f"p{i}",
            expert_action=expert,
            candidates=list(candidates),
        )
        for i in range(n)
    ]


def test_progress_beats_no_progress() -> None:
    pairs = make_pairs(_rows(_candidate("good", True), _candidate("bad", False)), "environment", 1)
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [(f"p{i}", "good", "bad") for i in range(4)]


def test_the_expert_stands_in_where_no_candidate_helps() -> None:
    pairs = make_pairs(_rows(_candidate("bad", False)), "environment", 1)
    assert {(p.chosen, p.rejected) for p in pairs} == {("expert", "bad")}
    with pytest.raises(R2VError, match="too few states with a wrong candidate"):
        make_pairs(_rows(_candidate("bad", False), expert=None), "environment", 1)


def test_unknown_progress_falls_back_to_the_verifier() -> None:
    rows = _rows(
        _candidate("high", score=0.9), _candidate("near", score=0.9 - SCORE_MARGIN / 2), _candidate("low", score=0.2)
    )
    assert {(p.chosen, p.rejected) for p in make_pairs(rows, "environment", 1)} == {("high", "low")}


def test_ranking_by_verifier_ignores_the_environment() -> None:
    rows = _rows(_candidate("wrong", False, 0.9), _candidate("right", True, 0.1))
    assert {(p.chosen, p.rejected) for p in make_pairs(rows, "verifier", 1)} == {("wrong", "right")}


def test_a_perfect_policy_is_told_what_to_change() -> None:
    with pytest.raises(R2VError, match=r"only 0 from 4 states.*every candidate makes progress.*candidates.temperature"):
        make_pairs(_rows(_candidate("good", True), _candidate("fine", True)), "environment", 1)


def test_indifferent_verifier_is_told_what_to_change() -> None:
    with pytest.raises(R2VError, match="verifier scores differ by less than"):
        make_pairs(_rows(_candidate("a", score=0.5), _candidate("b", score=0.5)), "verifier", 1)
    with pytest.raises(R2VError, match="only 0 from 4 states"):
        make_pairs(_rows(_candidate("a"), _candidate("b")), "environment", 1)


def test_whole_templates_are_held_out_and_some_of_each_side_are_left() -> None:
    rows = _rows(_candidate("good", True), _candidate("bad", False), n=40)
    rows = [row.model_copy(update={"task_id": f"task{i}"}) for i, row in enumerate(rows)]
    pairs = make_pairs(rows, "environment", 1, {f"task{i}": f"template{i // 4}" for i in range(40)})
    held = held_out_templates(pairs, 0.15, 1)
    training, apart = split(pairs, held)
    assert len(held) == 2 and len(apart) == 8 and len(training) == 32
    assert not {p.template_id for p in training} & {p.template_id for p in apart}
    assert held == held_out_templates(pairs, 0.15, 1) and held_out_templates(pairs, 0.0, 1) == frozenset()
    assert {held_out_templates(pairs, 0.15, seed) for seed in range(5)} != {held}
    assert len(held_out_templates(pairs, 1.0, 1)) == 9
    assert held_out_templates(pairs[:4], 0.5, 1) == frozenset(), "a single template"
    assert held_out_templates(pairs[2:6], 0.5, 1) == frozenset(), "too few would be left to train on"


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), min_size=2, max_size=6), min_size=1, max_size=8
    ),
    st.integers(0, 9),
)
def test_pairs_are_few_sound_and_seeded(states: list[list[tuple[str, bool]]], seed: int) -> None:
    truth = [dict(state) for state in states]
    rows = [
        CandidateRow(
            episode_id=f"e{i}",
            task_id="t",
            step=i,
            z=None,
            prompt=str(i),
            expert_action="a",
            candidates=[_candidate(text, progress) for text, progress in known.items()],
        )
        for i, known in enumerate(truth)
    ]
    try:
        pairs = make_pairs(rows, "environment", seed)
    except R2VError:
        return
    assert len(pairs) >= MIN_PAIRS and pairs == make_pairs(rows, "environment", seed)
    for i, known in enumerate(truth):
        mine = [pair for pair in pairs if pair.prompt == str(i)]
        assert len(mine) <= PAIRS_PER_STATE and len(set(mine)) == len(mine)
        for pair in mine:
            assert not known[pair.rejected] and pair.chosen != pair.rejected
            assert known.get(pair.chosen) or not any(known.values())
