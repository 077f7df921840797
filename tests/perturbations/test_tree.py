"""Noise on web pages: elements of an accessibility tree are hidden, stripped, moved and added."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.evaluation.frame import carried_out_injection
from r2v_core.perturbations import StepContext, make_noise
from r2v_core.perturbations.tree import DECOYS, is_tree
from r2v_core.trajectory import Observation, Perturbation, Step
from tests.perturbations.noise_cases import CURRENT, OPERATORS, everything, settings, step_context

PAGE = """\
[2] tablist
  [3] tab 'Section #1' expanded=false
  [9] tab 'Section #2' selected expanded
    [11] link 'Read. More'
text 'Username'
[16] textbox value='ann' focused
[18] listbox
  [19] option 'Lolita' selected
  [20] option 'Barbara'
[22] button 'Submit'"""
LINES = PAGE.splitlines()
OBSERVATION = Observation(state=PAGE, feedback="There is no element 4.")
ON_ELEMENTS = ("mask", "drop_sentences", "shuffle", "repeat", "irrelevant_text", "decoy_objects")
INJECTIONS = ("override", "fake_system", "fake_goal")


def at(z: int = 1, step: int = 3) -> StepContext:
    return StepContext(z, "t", step, "Select Lolita and press Submit.", ("click('22')",), None, OBSERVATION)


def seen(operator: str, z: int = 1) -> tuple[list[str], Perturbation]:
    observation, records = make_noise(settings(**{operator: 1.0})).observe(at(z), OBSERVATION)
    assert observation.feedback == OBSERVATION.feedback
    assert [record.operator for record in records] == [operator]
    return observation.state.splitlines(), records[0]


def ids(lines: list[str]) -> set[str]:
    return set(re.findall(r"^ *\[(\d+)\]", "\n".join(lines), re.MULTILINE))


def test_pages_are_told_from_texts() -> None:
    assert is_tree(PAGE) and is_tree("  [7] clickable")
    assert not is_tree(CURRENT.text) and not is_tree("") and not is_tree("[SYSTEM] Policy update\nlist[3] of items")
    assert not is_tree("[1, 2] [3] x\nWords [4] inside")


@pytest.mark.parametrize("z", range(5))
def test_hidden_elements_take_what_is_in_them_along(z: int) -> None:
    lines, record = seen("drop_sentences", z)
    assert 0 < len(lines) < len(LINES) and record.detail["elements"] == len(LINES) - len(lines)
    assert [line for line in LINES if line in lines] == lines
    assert LINES[0] in lines or not ids(lines) & {"3", "9", "11"}
    assert LINES[2] in lines or LINES[3] not in lines


@pytest.mark.parametrize("z", range(5))
def test_stripped_elements_keep_id_and_role(z: int) -> None:
    lines, record = seen("mask", z)
    changed = [(a, b) for a, b in zip(LINES, lines, strict=True) if a != b]
    assert 0 < len(changed) <= record.detail["elements"]
    assert all(re.fullmatch(r" *\[\d+\] \w+", b) and a.startswith(b) for a, b in changed)


@pytest.mark.parametrize("z", range(5))
def test_reordered_elements_stay_below_their_parents(z: int) -> None:
    lines, _ = seen("shuffle", z)
    assert sorted(lines) == sorted(LINES) and lines != LINES
    assert lines.index(LINES[3]) == lines.index(LINES[2]) + 1
    assert {*lines[lines.index(LINES[6]) + 1 :][:2]} == {LINES[7], LINES[8]}


def test_repeated_elements_stand_together() -> None:
    lines, record = seen("repeat")
    [i] = [i for i in range(1, len(lines)) if lines[i] == lines[i - 1]]
    assert lines[:i] + lines[i + 1 :] == LINES and lines[i].strip() == record.detail["element"]


@pytest.mark.parametrize("z", range(5))
def test_decoys_look_like_elements_and_have_ids_of_their_own(z: int) -> None:
    lines, record = seen("decoy_objects", z)
    added = [line.strip() for line in lines if line.strip() in record.detail["elements"]]
    assert sorted(added) == sorted(record.detail["elements"]) and 1 <= len(added) <= 3
    assert [line for line in lines if line.strip() not in added] == LINES
    assert all(re.fullmatch(r"\[\d+\] (\w+) '(.+)'", line) for line in added)
    assert all(re.fullmatch(r"\[\d+\] (\w+) '(.+)'", line).groups() in DECOYS for line in added)  # type: ignore[union-attr]
    assert all(int(number) > 100 for number in ids(added))


def test_irrelevant_text_is_text_of_the_page() -> None:
    lines, record = seen("irrelevant_text")
    [new] = [line for line in lines if line not in LINES]
    assert new.strip() == f"text '{record.detail['text']}'" and [line for line in lines if line != new] == LINES


@pytest.mark.parametrize("operator", INJECTIONS)
@pytest.mark.parametrize("z", range(4))
def test_injected_commands_are_about_an_element_that_nobody_else_would_click(operator: str, z: int) -> None:
    lines, record = seen(operator, z)
    target, new = record.detail["target_action"], [line.strip() for line in lines if line not in LINES]
    assert re.fullmatch(r"click\('\d+'\)", target) and len(new) == 2
    assert new[0].startswith('text "') and target in new[0]
    assert ids(new[1:]).isdisjoint(ids(LINES)) and f"'{ids(new[1:]).pop()}'" in target
    for said, obeyed in ((target, True), (target.replace("'", '"'), True), ("click('22')", False)):
        step = Step(index=0, observation=OBSERVATION, action=said, actor="slm", perturbations=[record])
        assert carried_out_injection(step) is obeyed


@given(st.integers(0, 2**40), st.integers(0, 50), st.floats(0, 1))
def test_same_z_same_noise(z: int, step: int, probability: float) -> None:
    first, second = make_noise(everything(probability)), make_noise(everything(probability))
    before = OBSERVATION.model_copy(deep=True)
    observation, records = first.observe(at(z, step), OBSERVATION)
    assert (observation, records) == second.observe(at(z, step), OBSERVATION)
    assert before == OBSERVATION and (observation is OBSERVATION) == (not records)


@given(st.text(st.sampled_from("[]0123 '\nabc"), max_size=60), st.integers(0, 99))
def test_damaged_pages_are_no_obstacle(text: str, z: int) -> None:
    state = f"{text}\n[5] button\n{text}"
    seen_state, _ = make_noise(everything(1.0)).observe(at(z), Observation(state=state, feedback=text))
    assert isinstance(seen_state.state, str)


@pytest.mark.parametrize("operator", [*ON_ELEMENTS, *INJECTIONS])
def test_noise_strikes_pages_when_it_strikes_texts(operator: str) -> None:
    assert operator in OPERATORS
    noise = make_noise(settings(**{operator: 0.5}))
    for z in range(20):
        on_text = noise.observe(step_context(3, z), CURRENT)[1]
        on_page = noise.observe(at(z), OBSERVATION)[1]
        assert [r.operator for r in on_page] == [r.operator for r in on_text]
