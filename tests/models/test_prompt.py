"""Every part of a prompt has a budget: with the real tokenizer, goals as long as SWE-bench's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2v_core.config.schema import SLMConfig
from r2v_core.models.budget import MARK, cut_to, shares
from r2v_core.models.chat_template import ChatTemplate
from r2v_core.models.prompt import WEIGHTS, render_prompt
from r2v_core.trajectory import Observation, Step

SEEN = Observation(state="You are in a kitchen. A door leads east.", feedback="You took the key.")
DONE = [Step(index=i, observation=SEEN, action=f"take key {i}", actor="slm") for i in range(4)]
SENTENCE = "The parser drops the last row when the file has no newline at its end. "


@pytest.fixture(scope="module")
def chat(tokenizers) -> ChatTemplate:
    return ChatTemplate(tokenizers["smollm2"])


def rendered(chat, goal="Take the key.", seen=SEEN, history=DONE, instructions="You play a game.", limit=320):
    return render_prompt(chat, SLMConfig(max_prompt_tokens=limit), instructions, goal, history, seen)


def test_a_prompt_that_fits_is_whole(chat):
    prompt = rendered(chat)
    assert prompt.cut == {}
    assert prompt.text == (
        "<|im_start|>system\nYou play a game.<|im_end|>\n<|im_start|>user\nGoal: Take the key.\n"
        "Done: take key 0; take key 1; take key 2; take key 3\nResult: You took the key.\n"
        "You are in a kitchen. A door leads east.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("characters", [600, 1187, 4000, 24770])
def test_a_long_goal_leaves_the_state_its_place(chat, characters):
    goal = (SENTENCE * 400)[:characters]
    prompt = rendered(chat, goal)
    assert chat.count_tokens(prompt.text) <= 320
    assert SEEN.state in prompt.text and SEEN.feedback in prompt.text and "take key 3" in prompt.text
    if characters == 600:
        assert prompt.cut == {} and goal in prompt.text
    else:
        shown = prompt.text.partition("Goal: ")[2].partition("\nDone")[0]
        assert shown.endswith(MARK) and goal.startswith(shown.removesuffix(MARK))
        assert prompt.cut == {"goal": chat.count_tokens(goal) - chat.count_tokens(shown)}
        assert chat.count_tokens(prompt.text) > 300  # and room is used


def test_older_actions_go_first_and_are_counted(chat):
    whole = rendered(chat)
    prompt = rendered(chat, limit=chat.count_tokens(whole.text) - 1)
    assert "Done: take key 1; take key 2; take key 3\n" in prompt.text
    assert list(prompt.cut) == ["history"] and prompt.cut["history"] > 0


texts = st.integers(0, 3000).map(lambda n: (SENTENCE * 50)[:n])


@settings(max_examples=25)
@given(goal=texts, state=texts, feedback=texts, instructions=texts, limit=st.integers(120, 400))
def test_no_prompt_exceeds_its_limit_and_each_part_keeps_something(chat, goal, state, feedback, instructions, limit):
    prompt = rendered(chat, goal, Observation(state=state, feedback=feedback), DONE, instructions, limit)
    assert chat.count_tokens(prompt.text) <= limit
    whole = chat.render(
        [
            {"role": "system", "content": instructions},
            {
                "role": "user",
                "content": f"Goal: {goal}\nDone: {'; '.join(s.action for s in DONE)}\n"
                + (f"Result: {feedback}\n" if feedback else "")
                + state,
            },
        ]
    )
    assert (prompt.cut == {}) == (chat.count_tokens(whole) <= limit)
    for part, text in (("goal", goal), ("state", state), ("result", feedback), ("instructions", instructions)):
        assert part not in prompt.cut or prompt.cut[part] <= chat.count_tokens(text)
    assert state[:4] in prompt.text and goal[:4] in prompt.text


@given(
    st.fixed_dictionaries({part: st.integers(0, 500) for part in WEIGHTS}),
    st.integers(0, 1000),
)
def test_shares_use_the_room_and_give_nobody_more_than_needed(needs, room):
    granted = shares(needs, WEIGHTS, room)
    assert all(granted[part] <= needs[part] for part in needs)
    assert sum(granted.values()) <= room
    if sum(needs.values()) >= room:
        assert room - sum(granted.values()) < len(needs)  # rounding
    for part, got in granted.items():
        fair = room * WEIGHTS[part] // sum(WEIGHTS.values())
        assert got >= min(needs[part], fair)


@given(st.text(max_size=300), st.integers(0, 100))
def test_cutting_keeps_the_longest_beginning(text, tokens):
    shown = cut_to(text, tokens, len)
    assert len(shown) <= tokens
    if len(text) <= tokens:
        assert shown == text
    elif shown:
        assert text.startswith(shown.removesuffix(MARK)) and shown.endswith(MARK)
