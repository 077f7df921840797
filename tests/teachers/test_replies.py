"""Replies as models and servers really send them: what is said, and what is no action."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.benchmarks.actions import code, one_line
from r2v_core.benchmarks.spoken import ALL_REASONING, UNFINISHED, spoken
from r2v_core.teachers.conversation import ParsedAction, read_action

SAID = [
    # the opening mark was in the prompt, or cut off by the server
    "I go.</think>go north",
    "The door is open.\nSo I go.</think>\n\ngo north",
    "First.\n</thinking>\ngo north",
    "<think>\n\n</think>\n\ngo north",
    "<think>north?</think>go north",
    "<think>a</think> and <think>b</think>go north",
    "<THINK>loud</THINK>go north",
    "<thought>x</thought>\ngo north",
    "<reasoning>because</reasoning>go north",
    "<seed:think>hm</seed:think>go north",
    "[THINK]hm[/THINK]go north",
    "◁think▷hm◁/think▷go north",
    "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>go north<|END_RESPONSE|>",
    "<think>hm</think><answer>go north</answer>",
    "<|channel|>analysis<|message|>We go.<|end|><|start|>assistant<|channel|>final<|message|>go north<|return|>",
    "<|channel|>final<|message|>go north",
    "analysisWe need to go.assistantfinalgo north",
    "go north<think>was that right?</think>",
    # marks of the chat format
    "go north<|im_end|>",
    "go north<|eot_id|>",
    "go north<end_of_turn>\n",
    "go north</s>",
    "go north<|im_end|>\n<|im_start|>user\nThe door is locked.",
    "<|im_start|>assistant\ngo north",
    "<|start_header_id|>assistant<|end_header_id|>\n\ngo north<|eot_id|>",
    "<s>go north</s>",
    # ReAct, JSON, decoration
    "Thought: the key is north. Action: go north",
    "Thought: the key is north.\nAction: go north",
    "**Thought:** the key is north.\n**Action:** go north",
    "Thought 1: north.\nAction 1: go north\nObservation 1: you are in the kitchen\nThought 2: done.\nAction 2: look",
    "Reasoning: north it is.\n\nNext action: `go north`",
    '{"action": "go north"}',
    '{"thought": "north it is", "action": "go north"}',
    '```json\n{"action": "go north"}\n```',
    "`go north`",
    '"go north"',
    "Action: go north",
    "<action>go north</action>",
    "```\ngo north\n```",
]


@pytest.mark.parametrize("reply", SAID)
def test_the_action_is_what_follows(reply: str) -> None:
    assert read_action(reply) == ParsedAction("go north")


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("<think>Should I go north, or", UNFINISHED),
        ("<think>a</think> then <think>b", UNFINISHED),
        ("[THINK]go north", UNFINISHED),
        ("<|channel|>analysis<|message|>We need to go", UNFINISHED),
        ("analysisWe need to go north", UNFINISHED),
        ("I go north.</think>", ALL_REASONING),
        ("<think>I go north.</think>", ALL_REASONING),
        ("<think>I go north.</think><|im_end|>", ALL_REASONING),
        ("<|im_end|>", "the reply is empty"),
        ("Thought: I should go north.", "a thought without an action"),
        ("Thought: north.\nAction: go\nAction Input: north", "an action with an input of its own"),
        ('{"thought": "hm"}', "holds no action"),
        ('{"action": {"name": "go", "to": "north"}}', "holds no action"),
        ('{"action": ""}', "holds no action"),
    ],
)
def test_what_is_no_action_is_never_played(reply: str, problem: str) -> None:
    reading = read_action(reply)
    assert reading.action == "" and problem in (reading.problem or "")


@pytest.mark.parametrize("reply", ["analysis of the room", "final exam", "thought police", "Action stations", "a < b"])
def test_ordinary_words_stay(reply: str) -> None:
    assert read_action(reply) == ParsedAction(reply) and one_line(reply) == reply


def test_the_small_models_reader_passes_over_the_same() -> None:
    assert one_line("<think>\n\n</think>\n\ngo north") == one_line("I go.</think>go north<|im_end|>") == "go north"
    assert one_line("<think>I go nor") == ""
    assert code("hm</think>\n```python\ndef f(x):\n    return x\n```") == "def f(x):\n    return x"


SOLUTION = "def f(x):\n    return x + 1"
BLOCKS = {
    "an example of use after it": [SOLUTION, "print(f(1))"],
    "tests after it": [SOLUTION, "def test_f():\n    assert f(1) == 2"],
    "the task repeated before it": ['def f(x):\n    """Add one."""', SOLUTION],
    "a stub before it": ["def f(x):\n    ...", SOLUTION],
    "an import before it": ["import math", SOLUTION],
}


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
def test_of_several_blocks_the_one_that_defines_something_is_taken_by_teacher_and_small_model(
    blocks: list[str],
) -> None:
    reply = "Here you are:\n" + "\nand:\n".join(f"```python\n{block}\n```" for block in blocks) + "\nDone."
    assert code(reply) == SOLUTION and read_action(reply, "code") == ParsedAction(SOLUTION)


def test_an_edit_is_no_python_and_taken_as_it_comes_first() -> None:
    edit = "edit a.py\n<<<< old\n  x\n==== new\n  y\n>>>> end"
    reply = f"```\n{edit}\n```\nwhich does:\n```python\n{SOLUTION}\n```"
    assert code(reply) == edit and read_action(reply, "code") == ParsedAction(edit)


MARKS = st.sampled_from(
    ["<think>", "</think>", "[THINK]", "[/THINK]", "◁/think▷", "<|im_end|>", "<|channel|>final<|message|>", "Thought:",
     "Action:", "```", "\n", '{"action":', '"', "}", "</s>", "<action>", "</action>", "assistantfinal", "analysis"]
)  # fmt: skip


@given(st.lists(st.one_of(MARKS, st.text(max_size=8)), max_size=12).map("".join), st.sampled_from(["line", "code"]))
def test_no_reply_raises_and_no_closing_mark_is_played(reply: str, form: str) -> None:
    reading = read_action(reply, form)  # type: ignore[arg-type]
    assert reading.problem is None or reading.problem.strip()
    for text in (spoken(reply)[0], one_line(reply), code(reply)):
        assert "</think>" not in text and "[/THINK]" not in text and "<|im_end|>" not in text
