"""What an agent writes as messages is what the server reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.scripted import Options, Scripted
from r2v_core.models.prompt import render_prompt
from r2v_core.serving.conversation import Conversation, read_conversation
from r2v_core.serving.episodes import Episodes
from r2v_core.teachers.base import Situation
from r2v_core.teachers.conversation import conversation
from r2v_core.trajectory import Observation, Step

PROGRAM = "def f(x):\n\n    return x"
EPISODES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "text game": (
        "Find the key.",
        [
            ("", "Kitchen\nA table.", "look"),
            ("You look.", "Kitchen\nA table.", ""),
            ("Say what.", "Hall\nA door.", "go"),
        ],
    ),
    "long feedback on a state that is known": (
        "Find the key.\n\nThen the door.",
        [("", "Kitchen\nA table.", "eat table"), ("No.\nReally not.\nNo!", "Kitchen\nA table.", "look")],
    ),
    "program": ("Write f.\n\n>>> f(1)\n1", [("", "There is no program yet.", PROGRAM), ("Taken.", PROGRAM, "run")]),
}
"""Goal and (feedback, state, action) of each step; what a client may send as text."""
HARD = (
    "Write f.\n\n>>> f(1)\n1",
    [("", "a\n\nb", "x"), ("", "one\ntwo", "y"), ("three\n\nfour\n", "\n", "z"), ("five\nsix", "a\n\nb\na\n\nb", "")],
)
"""What only parts can say."""


def steps_of(told: Sequence[tuple[str, str, str]]) -> list[Step]:
    return [
        Step(index=i, observation=Observation(feedback=feedback, state=state), action=action, actor="slm")
        for i, (feedback, state, action) in enumerate(told)
    ]


def as_read(messages: list[Any]) -> tuple[Conversation, list[tuple[str, str]], list[str]]:
    found = read_conversation(messages)
    return found, [(seen.feedback, seen.state) for seen in found.observations], list(found.actions)


@pytest.mark.parametrize("name", EPISODES)
def test_what_the_projects_own_agent_sends_is_read_as_it_was(name: str) -> None:
    goal, told = EPISODES[name]
    steps = steps_of(told)
    for i, now in enumerate(steps):
        situation = Situation(None, "You play.", goal, steps[:i], now.observation)  # type: ignore[arg-type]
        found, seen, actions = as_read(conversation(situation, history_steps=10))
        assert (found.instructions, found.goal, found.unseen) == ("You play.", goal, ()) and found.step == i
        assert seen == [(feedback, state) for feedback, state, _ in told[: i + 1]]
        assert actions == [action for _, _, action in told[:i]]


def test_a_conversation_that_was_cut_names_what_is_gone() -> None:
    goal, told = EPISODES["text game"]
    steps = steps_of(told)
    situation = Situation(None, "You play.", goal, steps[:2], steps[2].observation)  # type: ignore[arg-type]
    found, seen, actions = as_read(conversation(situation, history_steps=1))
    assert (found.goal, found.unseen, actions) == (goal, ("look",), [""]) and found.step == 2
    assert seen == [("You look.", "Kitchen\nA table."), ("Say what.", "Hall\nA door.")]


def test_parts_say_exactly_what_was_seen() -> None:
    goal, told = HARD
    messages: list[dict[str, Any]] = [{"role": "developer", "content": "You play."}]
    for i, (feedback, state, action) in enumerate(told):
        texts = [feedback if i else f"Goal: {goal}", state]
        messages.append({"role": "user", "content": [{"type": "text", "text": text} for text in texts]})
        messages.append({"role": "assistant", "content": action or None})
    found, seen, actions = as_read(messages[:-1])
    assert found.goal == goal and seen == [(feedback, state) for feedback, state, _ in told]
    assert actions == [action for _, _, action in told[:-1]]


def test_the_small_models_own_prompt_is_read_into_an_equal_one() -> None:
    chat, slm = Scripted(Options()), SLMConfig()
    goal, told = EPISODES["text game"]
    steps = steps_of([(f, s, a or "wait") for f, s, a in told])
    for i, now in enumerate(steps):
        prompt = render_prompt(chat, slm, "You play.", goal, steps[:i], now.observation).text
        _, _, content = prompt.removesuffix("\nassistant:").partition("user: ")
        messages = [{"role": "system", "content": "You play."}, {"role": "user", "content": content}]
        found = read_conversation(messages)
        history = Episodes().history(found, None)
        assert found.step == i and found.observations == (now.observation,)
        assert render_prompt(chat, slm, "You play.", found.goal, history, found.observations[-1]).text == prompt


def test_chats_of_other_clients_have_a_goal_and_something_seen() -> None:
    found = read_conversation([{"role": "user", "content": "Please find the key.\nYou see a door."}])
    assert (found.instructions, found.goal) == (None, "Please find the key.")
    assert found.observations == (Observation(state="You see a door."),)


def test_a_prefix_is_the_same_in_every_longer_conversation_and_in_no_other() -> None:
    def messages(*texts: str) -> list[dict[str, str]]:
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]

    short, long = read_conversation(messages("Goal: a\n\nb")), read_conversation(messages("Goal: a\n\nb", "c", "d"))
    assert long.prefixes[0] == short.prefixes[0] and long.prefixes[1] != short.prefixes[0]
    others = [messages("Goal: a\n\nc"), messages("Goal: a\n\nb", "x", "d")]
    assert {read_conversation(other).prefixes[-1] for other in others}.isdisjoint(long.prefixes)


def test_what_is_remembered_is_bounded() -> None:
    memory = Episodes(most=2)
    chats = [
        read_conversation([{"role": "user", "content": f"Goal: {i}\n\nx"}, {"role": "assistant", "content": "a"},
                           {"role": "user", "content": "y"}])
        for i in range(3)
    ]  # fmt: skip
    for i in range(3):
        first = read_conversation([{"role": "user", "content": f"Goal: {i}\n\nx"}])
        memory.remember(first, None, steps_of([("", "x", "a")])[0].model_copy(update={"actor": "teacher"}))
    assert [memory.history(chat, None)[0].actor for chat in chats] == ["slm", "teacher", "teacher"]
